"""Who may call what: every route, with every kind of wrong key."""

import re
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.testclient import TestClient

from api import auth
from api.auth import SESSION_COOKIE, check_policies, hash_secret, policy_of
from store.database import Database
from store.ids import encode_id, new_id
from store.models.access import ApiKey
from store.models.base import utc_now

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/login"), ("POST", "/login")}
JSON = {"Content-Type": "application/json"}


def operations(app: FastAPI) -> list[tuple[str, str, str]]:
    """(method, path template, policy) of everything that is served."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            found += [(method, route.path, str(policy_of(route))) for method in sorted(route.methods or ())]
    return found


def path_of(template: str) -> str:
    """A path of the template, with ids that do not exist."""
    return re.sub(r"{(\w+?)(_id)?}", lambda match: encode_id(match[1], new_id()), template)


def test_only_the_allow_listed_routes_are_open(app: FastAPI) -> None:
    assert {(method, path) for method, path, policy in operations(app) if policy == "open"} == OPEN
    assert len(operations(app)) > 40


def test_no_route_answers_without_a_valid_key(
    app: FastAPI, anonymous: TestClient, make_key: Callable[..., str], database: Database
) -> None:
    revoked, expired, genuine = make_key(), make_key(expires_at=utc_now() - timedelta(seconds=1)), make_key()
    with database.write() as session:
        session.get_one(ApiKey, auth.split_key(revoked)[0]).revoked_at = utc_now()  # type: ignore[index]
    wrong = [
        None,
        "Bearer",
        "Bearer garbage",
        f"Bearer {genuine}x",
        f"Bearer {genuine[:-1]}",
        f"Basic {genuine}",
        f"Bearer {encode_id(auth.KEY_PREFIX, new_id())}_{'x' * 43}",
        f"Bearer {revoked}",
        f"Bearer {expired}",
        "Bearer lco_sk_' OR 1=1 --_x",
        "Bearer lco_sk_" + "x" * 10_000,
    ]
    for method, template, policy in operations(app):
        if (method, template) in OPEN:
            continue
        for header in wrong if template == "/v1/jobs" else wrong[:1] + wrong[7:9]:
            headers = {} if header is None else {"Authorization": header}
            response = anonymous.request(method, path_of(template), headers=headers)
            assert response.status_code == 401, (method, template, policy, header, response.text)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"] == "unauthenticated"
            assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["//v1/jobs", "/v1//jobs", "/v1/jobs/", "/%2e%2e/v1/jobs", "/v1%2fjobs", "/V1/jobs"])
def test_no_spelling_of_a_path_goes_around_the_key(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path).status_code in (401, 404)


def test_unknown_host_is_refused_everywhere(http: TestClient) -> None:
    for host in ("a/?x=", "evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "[::1", "a b"):
        for path in ("/healthz", "/v1/jobs", "/nowhere"):
            response = http.get(path, headers={"Host": host})
            assert (response.status_code, response.json()["code"]) == (400, "invalid_host"), (host, path)


def test_known_hosts_are_accepted(http: TestClient) -> None:
    for host in ("127.0.0.1:8642", "localhost", "LOCALHOST:1", "[::1]:8642"):
        assert http.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_each_scope_reaches_what_it_includes_and_no_more(
    app: FastAPI, anonymous: TestClient, make_key: Callable[..., str]
) -> None:
    for scope in auth.SCOPES:
        headers = {"Authorization": f"Bearer {make_key(scope)}"}
        for method, template, policy in operations(app):
            if policy == "open" or template.endswith("/stream"):
                continue
            status = anonymous.request(method, path_of(template), headers=headers).status_code
            may = auth.SCOPES.index(scope) >= auth.SCOPES.index(policy)  # type: ignore[arg-type]
            assert (status != 403) == may, (scope, method, template, policy, status)


def test_route_without_a_policy_stops_the_application() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    inner, outer = APIRouter(), APIRouter()

    @inner.get("/forgotten")
    def forgotten() -> None:
        """Nobody decided about this one."""

    outer.include_router(inner)
    app.include_router(outer)
    with pytest.raises(RuntimeError, match=r"/forgotten \(forgotten\) declares no policy"):
        check_policies(app, frozenset())


def test_unexpected_mount_stops_the_application(app: FastAPI) -> None:
    check_policies(app, frozenset({"/static"}))
    with pytest.raises(RuntimeError, match="expected mount"):
        check_policies(app, frozenset())


def test_secret_of_a_key_is_nowhere_in_the_database(database: Database, make_key: Callable[..., str]) -> None:
    key = make_key()
    secret = key.split("_", 3)[3]
    with database.read() as session:
        row = session.query(ApiKey).one()
        assert row.secret_sha256 == hash_secret(secret)
    assert len(secret) >= 43
    assert secret.encode() not in b"".join(path.read_bytes() for path in database_files(database) if path.exists())


def database_files(database: Database) -> list:  # type: ignore[type-arg]
    from pathlib import Path

    main = Path(str(database.engine.url.database))
    return [main, main.with_name(f"{main.name}-wal")]


def test_revoked_key_is_dead_within_a_second(
    http: TestClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_key("read")
    headers = {"Authorization": f"Bearer {other}"}
    assert http.get("/v1/jobs", headers=headers).status_code == 200
    key_id = encode_id("key", auth.split_key(other)[0])  # type: ignore[index]
    assert http.post(f"/v1/api_keys/{key_id}/revoke").status_code == 200
    assert http.get("/v1/jobs", headers=headers).status_code == 401


def test_key_revoked_by_another_process_is_believed_for_a_second_at_most(
    http: TestClient, make_key: Callable[..., str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("api.auth.time.monotonic", lambda: now)
    key = make_key("read")
    headers = {"Authorization": f"Bearer {key}"}
    assert http.get("/v1/jobs", headers=headers).status_code == 200
    with database.write() as session:
        session.get_one(ApiKey, auth.split_key(key)[0]).revoked_at = utc_now()  # type: ignore[index]
    now += 1.0
    assert http.get("/v1/jobs", headers=headers).status_code == 401


def test_use_of_a_key_is_noted(http: TestClient) -> None:
    http.get("/v1/jobs")
    while (key := http.get("/v1/api_keys").json()["data"][0])["last_used_at"] is None:  # noted beside the request
        time.sleep(0.01)
    assert "secret" not in str(key)


def log_in(http: TestClient) -> str:
    """Opens a session through a one-time link; the client has the cookie and no key afterwards."""
    link = http.post("/v1/login_links").json()["path"]
    token = link.partition("link=")[2]
    del http.headers["Authorization"]
    response = http.post("/login", data={"link": token}, headers={"Origin": "http://127.0.0.1:8642"})
    assert response.status_code == 303, response.text
    assert http.get("/v1/jobs").status_code == 200
    return token


def test_one_time_link_opens_one_session(http: TestClient) -> None:
    token = log_in(http)
    cookie = http.cookies.get(SESSION_COOKIE)
    http.cookies.clear()
    again = http.post("/login", data={"link": token}, headers={"Origin": "http://127.0.0.1:8642"})
    assert again.status_code != 303
    assert SESSION_COOKIE not in again.cookies
    assert http.get("/v1/jobs").status_code == 401
    http.cookies.set(SESSION_COOKIE, token)  # the link's own token is no session
    assert http.get("/v1/jobs").status_code == 401
    http.cookies.set(SESSION_COOKIE, str(cookie))
    assert http.get("/v1/jobs").status_code == 200


def test_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(http: TestClient) -> None:
    link = http.post("/v1/login_links").json()["path"].partition("link=")[2]
    response = http.post("/login", data={"link": link}, headers={"Origin": "http://127.0.0.1:8642"})
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "Path=/" in cookie


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1:9", "http://127.0.0.1"])
def test_session_changes_nothing_for_another_origin(http: TestClient, job: dict, origin: str | None) -> None:  # type: ignore[type-arg]
    log_in(http)
    headers = {} if origin is None else {"Origin": origin}
    response = http.post("/v1/jobs", json=job, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "cross_origin")
    assert http.get("/v1/jobs").json()["data"] == []


def test_session_works_from_the_servers_own_pages(http: TestClient, job: dict) -> None:  # type: ignore[type-arg]
    log_in(http)
    response = http.post("/v1/jobs", json=job, headers={"Origin": "http://127.0.0.1:8642"})
    assert response.status_code == 201


def test_browser_is_led_to_the_login_page_and_a_program_is_not(anonymous: TestClient) -> None:
    browser = {"Accept": "text/html,*/*"}
    response = anonymous.get("/docs?x=1", headers=browser)
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=/docs%3Fx%3D1"
    assert anonymous.get("/v1/jobs", headers=browser).status_code == 401
    assert anonymous.get("/docs").status_code == 401


def test_sessions_of_a_revoked_key_end(http: TestClient, make_key: Callable[..., str]) -> None:
    key = make_key("write")
    http.headers["Authorization"], admin = f"Bearer {key}", http.headers["Authorization"]
    log_in(http)
    key_id = encode_id("key", auth.split_key(key)[0])  # type: ignore[index]
    assert http.post(f"/v1/api_keys/{key_id}/revoke", headers={"Authorization": admin}).status_code == 200
    assert http.get("/v1/jobs").status_code == 401


def test_new_key_is_shown_once(http: TestClient) -> None:
    body = {"name": "ci", "scope": "write", "expires_in_days": 7}
    first = http.post("/v1/api_keys", json=body, headers={"Idempotency-Key": "k"})
    again = http.post("/v1/api_keys", json=body, headers={"Idempotency-Key": "k"})
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["key"] == ""
    key = first.json()["key"]
    assert http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    shown = http.get(f"/v1/api_keys/{first.json()['id']}")
    assert "key" not in shown.json()
    assert key.split("_", 3)[3] not in shown.text + http.get("/v1/api_keys").text
