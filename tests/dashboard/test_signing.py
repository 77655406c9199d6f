"""Signing in: a key or a one-time link becomes a session; without one, pages lead to the form."""

import pytest

from tests.dashboard.conftest import ORIGIN, Site
from tests.dashboard.filling import HOSTILE

SAME = {"Origin": ORIGIN}


@pytest.mark.parametrize("path", ["/", "/experiments", "/jobs?kind=sft", "/runs/run_x", "/results", "/workers"])
def test_pages_without_a_session_lead_to_the_sign_in_and_back(site: Site, path: str) -> None:
    answer = site.client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=/")
    form = site.client.get(answer.headers["location"])
    assert form.status_code == 200
    assert f'name="next" value="{path}"' in form.text


def test_a_program_without_a_key_gets_a_problem_not_a_form(site: Site) -> None:
    answer = site.client.get("/jobs", headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_becomes_a_session_that_no_script_and_no_other_site_can_use(site: Site) -> None:
    answer = site.client.post("/login", data={"key": f" {site.key} ", "next": "/jobs"}, headers=SAME)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert site.key not in cookie
    assert site.client.get("/jobs").status_code == 200


@pytest.mark.parametrize("key", ["", "x", "lco_sk_00000000000000000000000000_x", HOSTILE])
def test_a_wrong_key_is_refused_and_not_repeated(site: Site, key: str) -> None:
    answer = site.client.post("/login", data={"key": key, "next": "/jobs"}, headers=SAME)
    assert answer.status_code == 401
    assert "no active API key" in answer.text
    assert "set-cookie" not in answer.headers
    assert not key or len(key) < 3 or key not in answer.text
    assert site.client.get("/jobs").status_code == 303


@pytest.mark.parametrize("goal", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_never_leads_to_another_site(site: Site, goal: str) -> None:
    answer = site.client.post("/login", data={"key": site.key, "next": goal}, headers=SAME)
    assert answer.headers["location"] == "/"
    assert 'name="next" value="/"' in site.client.get("/login", params={"next": goal}).text


def test_a_link_works_once_and_looking_at_it_does_not_use_it(site: Site) -> None:
    token = site.new_link()
    for _ in range(2):
        page = site.client.get("/login", params={"link": token})
        assert page.status_code == 200
        assert f'value="{token}"' in page.text
        assert "set-cookie" not in page.headers
    assert site.client.post("/login", data={"link": token}, headers=SAME).headers["location"] == "/"
    assert site.client.get("/").status_code == 200
    site.client.cookies.clear()
    again = site.client.post("/login", data={"link": token}, headers=SAME)
    assert again.status_code == 401
    assert "used already" in again.text
    assert site.client.get("/").status_code == 303


def test_a_link_is_escaped_into_its_form(site: Site) -> None:
    page = site.client.get("/login", params={"link": HOSTILE, "next": HOSTILE}).text
    assert "<script>window" not in page
    assert "<img" not in page


def test_another_sites_form_cannot_sign_anybody_in_or_out(site: Site) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
        answer = site.client.post("/login", data={"key": site.key}, headers={"Origin": origin})
        assert answer.status_code == 403
    site.sign_in()
    assert site.client.post("/logout", headers={"Origin": "https://evil.example"}).status_code == 403
    assert site.client.get("/").status_code == 200


def test_signing_out_ends_the_session_itself(site: Site) -> None:
    site.sign_in()
    token = site.client.cookies["lco_session"]
    answer = site.client.post("/logout", headers=SAME)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    site.client.cookies.clear()
    site.client.cookies.set("lco_session", token, domain="127.0.0.1")
    assert site.client.get("/").status_code == 303
