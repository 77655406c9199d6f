"""One mail in plain text, through the operator's server."""

import smtplib
import ssl
import time
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

from store.deliveries import Answer
from store.settings import Settings

SECONDS = 15.0
"""Each exchange with the server."""
_PAGES = {"job": "jobs", "exp": "experiments", "run": "runs", "vrd": "verdicts", "sch": "schedules"}


def make_mail(settings: Settings, to: str, message_id: str, payload: dict[str, Any]) -> EmailMessage:
    """The mail about a notification: its subject, what is known of it, and a link where the platform has an address."""
    kind, data = str(payload["type"]), payload["data"]
    name = data.get("name") or data["id"]
    mail = EmailMessage()
    mail["From"] = settings.mail_from
    mail["To"] = to
    mail["Subject"] = _line(f"[lco] {kind.replace('.', ' ')}: {name}")
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{message_id}@{settings.mail_from.rpartition('@')[2].rstrip('>')}>"
    mail["Auto-Submitted"] = "auto-generated"
    lines = [f"{kind} at {payload['timestamp']}", ""]
    lines += [f"{key.replace('_', ' ')}: {_line(value)}" for key, value in data.items() if value not in (None, "")]
    page = _PAGES.get(str(data["id"]).partition("_")[0])
    if settings.url and page:
        lines += ["", f"{settings.url.rstrip('/')}/{page}/{data['id']}"]
    mail.set_content("\n".join(lines) + "\n")
    return mail


def send(settings: Settings, mail: EmailMessage, tls: ssl.SSLContext | None = None) -> Answer:
    """Hands a mail to the server; whatever happens is an answer.

    Args:
        tls: whom to trust; None for the system's authorities.
    """
    started = time.monotonic()
    code, error = 250, ""
    try:
        _hand_over(settings, mail, tls or ssl.create_default_context())
    except smtplib.SMTPRecipientsRefused as refusal:
        code, reply = next(iter(refusal.recipients.values()))
        error = f"the recipient is refused: {reply.decode('utf-8', 'replace')}"
    except smtplib.SMTPResponseException as refusal:
        told = refusal.smtp_error
        code = refusal.smtp_code
        error = f"the mail server refused: {told.decode('utf-8', 'replace') if isinstance(told, bytes) else told}"
    except smtplib.SMTPNotSupportedError:
        error = "the mail server does not speak STARTTLS, or takes no password"
    except ssl.SSLError:
        error = "the mail server's certificate is not trusted"
    except (smtplib.SMTPException, OSError) as failure:
        error = f"the mail server cannot be talked to ({type(failure).__name__})"
    return Answer(
        error=error,
        code=code if code > 0 and (code != 250 or not error) else None,
        duration_milliseconds=round((time.monotonic() - started) * 1000),
    )


def _hand_over(settings: Settings, mail: EmailMessage, tls: ssl.SSLContext) -> None:
    parts = urlsplit(settings.smtp_url)
    host, is_tls = parts.hostname or "", parts.scheme == "smtps"
    port = parts.port or (465 if is_tls else 587)
    connection = (
        smtplib.SMTP_SSL(host, port, timeout=SECONDS, context=tls)
        if is_tls
        else smtplib.SMTP(host, port, timeout=SECONDS)
    )
    with connection as server:
        if not is_tls and parts.query != "starttls=never":
            server.starttls(context=tls)
        if parts.username:
            server.login(unquote(parts.username), settings.smtp_password)
        server.send_message(mail)


def _line(value: Any) -> str:
    """A value on one line: text from runs shapes no header and no second line."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return " ".join(text.split())[:200]
