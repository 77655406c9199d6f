"""Pages: they render over any database, show text as text, and obey the content security policy."""

from html.parser import HTMLParser

import pytest

from store.ids import decode_id
from store.models.base import utc_now
from store.models.record import Completion
from store.models.run import Run
from store.models.worker import Worker
from store.states import RunState
from tests.dashboard.conftest import Site
from tests.dashboard.filling import HOSTILE, Filled

SETTINGS = ["/settings", "/settings/projects", "/settings/audit"]
LISTS = [
    "/",
    "/experiments",
    "/jobs",
    "/results",
    "/datasets",
    "/checkpoints",
    "/workers",
    "/sample",
    "/benchmarks",
    *SETTINGS,
]


class Markup(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += "\n"

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str | None]:
        """The values of an attribute over all elements of a kind."""
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


def get(site: Site, path: str, status: int = 200) -> Markup:
    answer = site.client.get(path)
    assert answer.status_code == status, (path, answer.text[:500])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Markup(answer.text)


@pytest.mark.parametrize("path", LISTS)
def test_a_page_over_an_empty_database_tells_what_to_type(empty: Site, path: str) -> None:
    empty.sign_in()
    page = get(empty, path)
    assert "lco " in page.text


def test_every_page_over_a_filled_database_renders(site: Site, filled: Filled) -> None:
    site.sign_in()
    for path in [*LISTS, *filled.pages()]:
        page = get(site, path)
        assert "h1" in {tag for tag, _ in page.elements}, path


def test_text_from_outside_never_becomes_markup(site: Site, filled: Filled) -> None:
    site.sign_in()
    shown = 0
    for path in [*LISTS, *filled.pages()]:
        page = get(site, path)
        shown += page.text.count(HOSTILE)
        assert "img" not in {tag for tag, _ in page.elements}, path
        assert all("src" in attributes for tag, attributes in page.elements if tag == "script"), path
        names = {name for _, attributes in page.elements for name in attributes}
        assert not {name for name in names if name.startswith("on") or name == "style"}, path
    assert shown > 50


def test_every_page_carries_the_strict_policy(site: Site, filled: Filled) -> None:
    pages = ["/login", "/login?link=x", "/nowhere"]
    answers = [site.client.get(path) for path in pages]
    site.sign_in()
    answers += [site.client.get(path) for path in [*LISTS, *filled.pages()]]
    for answer in answers:
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_every_page_names_a_json_twin_that_answers(site: Site, filled: Filled) -> None:
    site.sign_in()
    for path in [*LISTS, *filled.pages()]:
        twins = [link for link in get(site, path).attributes("a", "href") if link and link.startswith("/v1/")]
        assert twins, path
        for twin in twins:
            answer = site.client.get(twin, headers={"Accept": "application/json"})
            assert answer.status_code == 200, (path, twin, answer.text)
            if "format=" not in twin:  # a download
                assert answer.json()["object"]


def test_methods_are_compared_with_a_baseline_and_one_without_results_is_told(site: Site, filled: Filled) -> None:
    site.sign_in()
    page = get(site, f"/experiments/{filled.experiment}/compare?baseline=sft")
    assert "+20.0" in page.text
    downloads = [link for link in page.attributes("a", "href") if link and "format=" in link]
    assert len(downloads) == 4
    assert "Nothing measured alike" in get(site, f"/experiments/{filled.experiment}/compare?baseline=ppo").text


def test_completions_stand_side_by_side_and_only_flipped_ones_where_asked(site: Site, filled: Filled) -> None:
    site.sign_in()
    first, second = filled.runs["measure-sft", 1], filled.runs["measure-sft", 0]
    assert f"/runs/{first}/against/{second}?change=flipped" in get(site, f"/runs/{first}").attributes("a", "href")
    identifier = decode_id("run", first)
    with site.database.write() as session:
        row = session.get(Completion, (identifier, 4))
        assert row is not None
        row.verdict, row.correct = "correct", True
    page = get(site, f"/runs/{first}/against/{second}")
    assert page.text.count("prompt ") == 25
    for run, other, change, num in (
        (first, second, "lost", 1),
        (second, first, "gained", 1),
        (first, second, "gained", 0),
    ):
        path = f"/v1/runs/{run}/completions/against/{other}"
        found = site.client.get(path, params={"change": change}, headers={"Accept": "application/json"}).json()["data"]
        assert [(pair["change"], pair["second"]["example_id"]) for pair in found] == [(change, "test-4")] * num
        assert "prompt 4 " in get(site, f"/runs/{first}/against/{second}?change=flipped").text


def test_links_and_files_of_pages_exist(site: Site, filled: Filled) -> None:
    site.sign_in()
    seen = set()
    for path in [*LISTS, f"/experiments/{filled.experiment}", f"/runs/{filled.runs['lco', 1]}"]:
        page = get(site, path)
        links = page.attributes("a", "href") + page.attributes("link", "href") + page.attributes("script", "src")
        seen |= {link.partition("#")[0] for link in links if link and link.startswith("/")}
    assert len(seen) > 30
    for link in seen:
        assert site.client.get(link).status_code == 200, link


def test_pages_refresh_themselves_only_while_something_may_happen(site: Site, filled: Filled) -> None:
    site.sign_in()
    for (name, seed), is_over in ((("lco", 1), False), (("ppo", 0), False), (("sft", 0), True), (("ppo", 1), True)):
        page = get(site, f"/runs/{filled.runs[name, seed]}")
        assert page.attributes("main", "data-every") == ([] if is_over else ["2"])
    assert get(site, f"/experiments/{filled.experiment}").attributes("main", "data-every") == ["2"]


def test_buttons_are_those_that_would_change_something(site: Site, filled: Filled) -> None:
    site.sign_in()
    expected = {("sft", 0): [""], ("lco", 1): ["/pause", "/cancel"], ("measure-ppo", 0): ["/resume", "/cancel"]}
    for key, verbs in expected.items():
        page = get(site, f"/runs/{filled.runs[key]}")
        shown = [path for path in page.attributes("button", "data-post") if path and path.startswith("/v1/runs/")]
        assert shown == [f"/v1/runs/{filled.runs[key]}{verb}" for verb in verbs]


def test_who_may_only_read_sees_no_button(site: Site, filled: Filled) -> None:
    site.sign_in(site.new_key("read"))
    for path in (f"/experiments/{filled.experiment}", f"/jobs/{filled.jobs['lco']}", f"/runs/{filled.runs['lco', 1]}"):
        assert get(site, path).attributes("button", "data-post") == []


def test_buttons_of_a_page_work_with_its_session(site: Site, filled: Filled) -> None:
    site.sign_in()
    run = filled.runs["grpo", 0]
    (path,) = [link for link in get(site, f"/runs/{run}").attributes("button", "data-post") if "cancel" in str(link)]
    answer = site.client.post(str(path), headers={"Origin": "http://127.0.0.1:8642", "Accept": "application/json"})
    assert answer.status_code in (200, 202), answer.text
    assert "cancelled" in get(site, f"/runs/{run}").text


def test_the_table_marks_the_best_and_names_missing_seeds(site: Site, filled: Filled) -> None:
    site.sign_in()
    page = get(site, f"/results?experiment={filled.experiment}")
    text = " ".join(page.text.split())
    assert "40.5 ± 0.7 (2)" in text  # sft, greedy: 40 and 41 percent
    assert "60.0 (1)" in text  # lco, greedy: one seed, hence no spread
    assert "seed 1 missing" in text
    best = [
        attributes for tag, attributes in page.elements if tag == "td" and "best" in (attributes.get("class") or "")
    ]
    assert len(best) == 2


def test_the_newest_experiment_is_tabled_unless_told(site: Site, filled: Filled) -> None:
    site.sign_in()
    page = get(site, "/results")
    assert f"/v1/results/table?experiment={filled.experiment}" in page.attributes("a", "href")


def test_jobs_are_filtered_and_paged(site: Site, filled: Filled) -> None:
    site.sign_in()
    names = {name: f"/jobs/{identifier}" for name, identifier in filled.jobs.items()}
    links = set(get(site, f"/jobs?kind=evaluation&status=&experiment={filled.experiment}").attributes("a", "href"))
    assert {name for name, link in names.items() if link in links} == {"measure-lco", "measure-sft", "measure-ppo"}
    assert "No job matches" in get(site, "/jobs?kind=sft&status=failed").text
    with site.database.write() as session:
        from store.models.job import Job

        session.add_all(Job(name=f"more-{n}", kind="train", method="x", spec={}) for n in range(30))
    first = get(site, "/jobs?kind=train")
    (older,) = [link for link in first.attributes("a", "href") if link and "after=" in link]
    second = get(site, older or "")
    assert [link for link in second.attributes("a", "href") if link and "before=" in link]
    assert names["lco"] in second.attributes("a", "href")
    assert names["lco"] not in first.attributes("a", "href")


def test_completions_are_paged_and_filtered_by_verdict(site: Site, filled: Filled) -> None:
    site.sign_in()
    path = f"/runs/{filled.runs['measure-lco', 0]}"
    first = get(site, path)
    assert "prompt 0 " in first.text and "prompt 24 " in first.text and "prompt 25 " not in first.text
    (following,) = [link for link in first.attributes("a", "href") if link and "after=" in link]
    assert "prompt 25 " in get(site, following or "").text
    wrong = get(site, f"{path}?verdict=wrong")
    assert "completion 1 " in wrong.text and "completion 0 " not in wrong.text
    assert site.client.get(f"{path}?verdict=maybe").status_code == 422


def test_what_does_not_exist_is_a_page_too(site: Site, filled: Filled) -> None:
    site.sign_in()
    for path in ("/runs/run_x", "/jobs/job_00000000000000000000000000", "/experiments/x", "/nowhere"):
        page = get(site, path, 404)
        assert "Not Found" in page.text


def test_a_failed_run_says_why(site: Site, filled: Filled) -> None:
    site.sign_in()
    page = get(site, f"/runs/{filled.runs['ppo', 1]}")
    assert "oom" in page.text
    assert page.text.count(HOSTILE) > 2


def test_the_overview_counts_runs_by_state(site: Site, filled: Filled) -> None:
    site.sign_in()
    with site.database.write() as session:
        succeeded = session.query(Run).filter_by(state=RunState.SUCCEEDED).count()
        total = session.query(Run).count()
        session.query(Worker).filter_by(pid=4711).one().last_seen_at = utc_now()
    text = " ".join(get(site, "/").text.split())
    assert f"Succeeded {succeeded} of {total} runs" in text
    assert "1 worker alive" in text
