"""`lco webhooks`."""

from api.parsers.base import Commands, add, group

_WEBHOOKS = "api.commands.webhooks"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    webhooks = group(commands, "webhooks", "be told what happens: by webhook or by mail")
    create = add(webhooks, "create", f"{_WEBHOOKS}:create", "add an endpoint and print its secret, once")
    create.add_argument("target", metavar="TARGET", help="a URL, or an e-mail address")
    create.add_argument("--events", metavar="NAME,...", default="*", help="such as job.failed,verdict.* (default: all)")
    create.add_argument("--description", default="", help="what it is for")
    listing = add(webhooks, "list", f"{_WEBHOOKS}:list_endpoints", "list endpoints")
    listing.add_argument("--json", action="store_true", help="as JSON")
    test = add(webhooks, "test", f"{_WEBHOOKS}:test", "send a test and wait for what comes of it")
    test.add_argument("id", metavar="ID")
    test.add_argument("--timeout", type=float, default=30.0, help="seconds to wait (default 30)")
    deliveries = add(webhooks, "deliveries", f"{_WEBHOOKS}:deliveries", "list what an endpoint was told")
    deliveries.add_argument("id", metavar="ID")
    deliveries.add_argument("--status", choices=("pending", "delivered", "failed"), help="only those of this status")
    deliveries.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    deliveries.add_argument("--json", action="store_true", help="as JSON")
    for name, text, identifier in (
        ("redeliver", "send a delivery once more", "DELIVERY"),
        ("rotate", "make a new secret and print it, once; for a day both sign", "ID"),
        ("enable", "tell an endpoint again", "ID"),
        ("disable", "tell an endpoint nothing", "ID"),
        ("remove", "remove an endpoint and its log", "ID"),
    ):
        add(webhooks, name, f"{_WEBHOOKS}:{name}", text).add_argument("id", metavar=identifier)
