"""Where alerts may be sent: the two channels, and the addresses that no request of the platform may reach by one."""

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from lco.config import Config
from lco.endpoint_config import origin_of
from store.errors import Invalid
from store.settings import Settings

_NEVER = [
    ipaddress.ip_network(text)
    # Special purposes that `is_global` counts as public, Azure's metadata, SRv6, and NAT64 of a network's own.
    for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "5f00::/16", "64:ff9b:1::/48", "2001::/23")
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def webhook_origin(url: str) -> str:
    """Scheme, host and port of a webhook's URL, which may have a query.

    Raises:
        ValueError: it is no http or https URL, or names a user or a fragment. The message does not repeat it.
    """
    if "#" in url:
        raise ValueError("must not hold a fragment")
    return origin_of(url.partition("?")[0])


def _checked_url(url: str) -> str:
    webhook_origin(url)
    if not url.isprintable() or not url.isascii() or " " in url:
        raise ValueError("must be an http:// or https:// URL")
    return url


def _checked_mailbox(text: str) -> str:
    if not _ADDRESS.fullmatch(text) or ".." in text:
        raise ValueError("must be one e-mail address, such as you@example.com")
    return text


class WebhookChannel(Config):
    """A POST, signed as Standard Webhooks says."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(max_length=2000), AfterValidator(_checked_url)]
    """Where to. https, unless the platform's operator lists the origin in `LCO_WEBHOOK_ORIGINS`."""


class EmailChannel(Config):
    """A mail in plain text."""

    kind: Literal["email"]
    to: Annotated[str, Field(max_length=320), AfterValidator(_checked_mailbox)]
    """One address; for several people take a list's, or several endpoints."""


Channel = Annotated[WebhookChannel | EmailChannel, Field(discriminator="kind")]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's: no loopback, private, link-local, metadata or special one."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        embedded = found.ipv4_mapped or found.sixtofour
        if embedded is None and (found in _NAT64 or found in _COMPATIBLE):
            embedded = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = embedded or found
    if any(found.version == network.version and found in network for network in _NEVER):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_link_local)


def check_channel(settings: Settings, channel: WebhookChannel | EmailChannel, pointer: str = "/channel") -> None:
    """Refuses a channel that this platform cannot or may not use.

    What a name resolves to is checked again whenever it is connected to.

    Raises:
        Invalid: names the field.
    """
    if isinstance(channel, EmailChannel):
        if not settings.smtp_url:
            raise Invalid(pointer, "this platform sends no mail: its operator sets LCO_SMTP_URL and LCO_MAIL_FROM")
        return
    if webhook_origin(channel.url) in settings.webhook_origin_set:
        return
    parts = urlsplit(channel.url)
    if parts.scheme != "https":
        raise Invalid(f"{pointer}/url", "must be https, unless the operator lists its origin in LCO_WEBHOOK_ORIGINS")
    host = parts.hostname or ""
    try:
        is_fine = is_public(host)
    except ValueError:  # a name
        is_fine = host != "localhost" and not host.endswith(".localhost")
    if not is_fine:
        raise Invalid(f"{pointer}/url", "is no public address; the operator may list its origin in LCO_WEBHOOK_ORIGINS")
