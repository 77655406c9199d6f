"""`lco webhooks`."""

import itertools
import sys
import time
from argparse import Namespace

from api.alert_schemas import WebhookDeliveryRead
from api.client import Client
from api.commands.tables import print_json, print_table, safe
from store.egress import Channel, WebhookChannel

_POLL_SECONDS = 0.5


def create(options: Namespace) -> int:
    """Adds an endpoint; its secret goes to the standard output, everything else to the other one."""
    is_url = "://" in options.target
    channel = {"kind": "webhook", "url": options.target} if is_url else {"kind": "email", "to": options.target}
    events = [name.strip() for name in options.events.split(",")]
    with Client() as client:
        found = client.create_webhook_endpoint(channel, events, options.description)
    print(f"{found.id} is told {', '.join(found.event_types)}", file=sys.stderr)
    print(found.secret or found.id)
    return 0


def list_endpoints(options: Namespace) -> int:
    """Lists endpoints."""
    with Client() as client:
        found = list(client.webhook_endpoints())
    if options.json:
        return print_json(found)
    rows = [
        [
            item.id,
            target(item.channel),
            ", ".join(item.event_types),
            "failing" if item.is_enabled and item.failing_since else "enabled" if item.is_enabled else "disabled",
            item.disabled_reason or item.description,
        ]
        for item in found
    ]
    return print_table(["id", "target", "events", "state", "remark"], rows)


def target(channel: Channel) -> str:
    """Where a channel leads."""
    return channel.url if isinstance(channel, WebhookChannel) else channel.to


def test(options: Namespace) -> int:
    """Sends a test; the exit code is 0 where it was delivered in time."""
    deadline = time.monotonic() + options.timeout
    with Client() as client:
        found = client.test_webhook_endpoint(options.id)
        while not _tried(found) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            found = client.webhook_delivery(found.id)
    if not _tried(found):
        print(f"{found.id} was not tried within {options.timeout:g} s; is a worker running?")
        return 1
    last = found.tries[-1]
    code = "" if last.response_code is None else f" (it answered {last.response_code})"
    print(safe(f"delivered{code}" if not last.error else f"failed: {last.error}"))
    return 1 if last.error else 0


def _tried(delivery: WebhookDeliveryRead) -> bool:
    return any(attempt.ended_at is not None for attempt in delivery.tries)


def deliveries(options: Namespace) -> int:
    """Lists what an endpoint was told."""
    with Client() as client:
        found = list(itertools.islice(client.webhook_deliveries(options.id, status=options.status), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [
            item.id,
            item.type,
            item.object_id,
            item.status,
            len(item.tries),
            item.tries[-1].response_code if item.tries else None,
            item.tries[-1].error if item.tries else None,
            item.next_try_at,
        ]
        for item in found
    ]
    return print_table(["id", "event", "about", "status", "tries", "answer", "error", "next try"], rows)


def redeliver(options: Namespace) -> int:
    """Sends a delivery once more."""
    with Client() as client:
        print(f"{client.redeliver_webhook(options.id).id} is sent again")
    return 0


def rotate(options: Namespace) -> int:
    """Makes a new secret."""
    with Client() as client:
        print(client.rotate_webhook_secret(options.id).secret)
    return 0


def enable(options: Namespace) -> int:
    """Tells an endpoint again."""
    with Client() as client:
        print(f"{client.change_webhook_endpoint(options.id, is_enabled=True).id} is enabled")
    return 0


def disable(options: Namespace) -> int:
    """Tells an endpoint nothing."""
    with Client() as client:
        print(f"{client.change_webhook_endpoint(options.id, is_enabled=False).id} is disabled")
    return 0


def remove(options: Namespace) -> int:
    """Removes an endpoint."""
    with Client() as client:
        client.remove_webhook_endpoint(options.id)
    print(f"{options.id} is removed")
    return 0
