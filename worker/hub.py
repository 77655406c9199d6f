"""What a branch or tag of a hub's repository means now: one question to the operator's hub."""

import json
import re
from urllib.parse import quote

import httpx2

SECONDS = 10.0
"""A whole answer."""
_MAX_BYTES = 4_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubFailed(Exception):
    """The hub gave no commit; the text says why, for a person."""


def commit_of(hub_url: str, repository: str, revision: str, token: str = "") -> str:
    """The commit that a revision of a model's repository means now.

    Args:
        hub_url: the operator's hub, such as `https://huggingface.co`; redirects away from it are not followed.
        token: sent to it, where it is not empty.

    Raises:
        HubFailed: the hub cannot be reached, knows no such revision, or answers something else.
    """
    url = f"{hub_url.rstrip('/')}/api/models/{quote(repository)}/revision/{quote(revision, safe='')}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            httpx2.Client(timeout=SECONDS, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise HubFailed(_told(answer.status_code, repository, revision))
            content = b""
            for part in answer.iter_bytes():
                content += part
                if len(content) > _MAX_BYTES:
                    raise HubFailed("the hub's answer is too long")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise HubFailed(f"the hub cannot be asked ({type(error).__name__})") from None
    try:
        commit = json.loads(content)["sha"]
    except (ValueError, KeyError, TypeError):
        commit = None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise HubFailed("the hub's answer names no commit; is LCO_HUB_URL a hub?")
    return commit


def _told(status: int, repository: str, revision: str) -> str:
    if status in (401, 403):
        return f"the hub does not give {repository} to this platform's token ({status})"
    if status == 404:
        return f"the hub has no revision {revision} of {repository}"
    if status in (301, 302, 307, 308):
        return f"the hub has moved {repository}: name its new place"
    return f"the hub answered {status}"
