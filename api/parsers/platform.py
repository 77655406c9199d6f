"""`lco up`, `api`, `migrate`, `login-link`."""

from api.parsers.base import Commands, add

_PLATFORM = "api.commands.platform"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    up = add(commands, "up", f"{_PLATFORM}:up", "start the platform here: migrate, API and supervisor, until Ctrl-C")
    up.add_argument("--port", type=int, help="port of the API; 0 takes a free one")
    up.add_argument("--slots", type=int, help="runs at a time")
    up.add_argument("--no-worker", action="store_true", help="the API alone")
    up.add_argument("--celery", action="store_true", help="with LCO_BROKER_URL: a Celery worker and the beat here, too")
    status = add(commands, "status", "api.commands.status:status", "what runs, what failed, what waits, free slots")
    status.add_argument("--json", action="store_true", help="as JSON")
    add(commands, "api", f"{_PLATFORM}:api", "run the API alone, in this process")
    add(
        commands,
        "migrate",
        f"{_PLATFORM}:migrate_database",
        "bring the database to the newest migration, and make the admin key where there is none",
    )
    add(commands, "login-link", f"{_PLATFORM}:login_link", "print a link that opens the dashboard, once")
