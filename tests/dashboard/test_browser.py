"""Pages in a real Chromium: they obey their policy, raise no error, run nothing that came as data, and are live.

`make test-browser` runs them; they skip where playwright or Chromium is missing.
"""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvicorn

from api.app import create_app
from api.auth import create_key
from api.sessions import create_link
from store.database import Database, make_engine
from store.ids import decode_id
from store.models.record import LogChunk, Metric
from store.models.run import Run
from store.settings import Settings
from store.states import RunState
from tests.dashboard.filling import HOSTILE, NUM_STEPS, STABLE_KEYS, Filled, fill

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH: apt-get install chromium"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LISTS = ["/", "/experiments", "/jobs", "/jobs?kind=train", "/results", "/datasets", "/benchmarks", "/workers"]
WATCH = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Served:
    """A platform's API that listens, and what is in it."""

    address: str
    database: Database
    key: str
    filled: Filled


@dataclass
class Tab:
    """A page of a browser, and everything that went wrong in it."""

    page: Any
    address: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Writes down errors, dialogs and requests to elsewhere."""
        self.page.add_init_script(WATCH)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._check_request)

    def _check_request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.complaints.append(f"off-origin {request.url}")

    def check(self) -> None:
        """Nothing went wrong so far, and no text ran as a script."""
        assert self.page.evaluate("window.__violations") == [], self.page.url
        assert self.page.evaluate("window.__xss === undefined"), self.page.url
        assert self.complaints == [], self.page.url

    def open(self, path: str) -> None:
        """Goes to a page and lets its scripts work."""
        self.page.goto(self.address + path)
        self.page.wait_for_timeout(150)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Served]:
    """A filled platform behind a real server on a free port."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("served") / "var", port=0)
    path = Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))
    path.parent.mkdir(mode=0o700)
    shutil.copyfile(migrated_sqlite, path)
    database = Database(make_engine(settings))
    with database.write() as session:
        _, key = create_key(session, "admin", "admin")
    filled = fill(database)
    config = uvicorn.Config(create_app(settings), port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}", database, key, filled)
    server.should_exit = True
    thread.join(20)
    database.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def new_tab(served: Served, chromium: Any, **options: Any) -> Tab:
    tab = Tab(chromium.new_context(**options).new_page(), served.address)
    tab.page.set_default_timeout(15_000)
    tab.watch()
    return tab


@pytest.fixture
def tab(served: Served, chromium: Any) -> Iterator[Tab]:
    """A signed-in tab; nothing may have gone wrong at its end."""
    tab = new_tab(served, chromium)
    tab.open("/login")
    tab.page.fill("input[name=key]", served.key)
    tab.page.click("button.primary")
    tab.page.wait_for_url(served.address + "/")
    yield tab
    tab.check()
    tab.page.context.close()


def update_run(served: Served, run: str, **values: Any) -> UUID:
    """Changes a run behind the pages' back, as a worker would."""
    identifier = decode_id("run", run)
    with served.database.write() as session:
        row = session.get(Run, identifier)
        assert row is not None
        for name, value in values.items():
            setattr(row, name, value)
        row.version += 1
    return identifier


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_every_page_obeys_its_policy_and_fits_its_width(served: Served, tab: Tab, width: int, scheme: str) -> None:
    tab.page.set_viewport_size({"width": width, "height": 800})
    tab.page.emulate_media(color_scheme=scheme)
    jobs, runs = served.filled.jobs, served.filled.runs
    experiment = f"/experiments/{served.filled.experiment}"
    few = [
        experiment,
        f"{experiment}/stability",
        f"{experiment}/compare",
        f"/jobs/{jobs['lco']}",
        f"/jobs/{jobs['measure-sft']}",
    ]
    few += [f"/runs/{runs[key]}" for key in (("lco", 1), ("ppo", 1), ("measure-lco", 0))]
    for path in [*LISTS, *(served.filled.pages() if scheme == "dark" else few)]:
        tab.open(path)
        tab.check()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_curves_are_drawn_and_hostile_names_of_metrics_are_text(served: Served, tab: Tab) -> None:
    tab.open(f"/jobs/{served.filled.jobs['lco']}")
    playwright.expect(tab.page.locator(".curve canvas")).to_have_count(2 + STABLE_KEYS)
    assert HOSTILE[:60] in tab.page.locator(".curves").inner_text()
    box = tab.page.locator(".curve .u-over").first.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    playwright.expect(tab.page.locator(".curve .latest").first).to_contain_text("at step")


def test_stability_shows_a_line_and_a_band_of_every_method_and_hides_it_when_asked(served: Served, tab: Tab) -> None:
    tab.open(f"/experiments/{served.filled.experiment}/stability")
    playwright.expect(tab.page.locator(".curve canvas")).to_have_count(STABLE_KEYS)
    reading = tab.page.locator(".curve .latest").first
    playwright.expect(reading).to_have_text(re.compile(r"^[\d.]+ · [\d.]+$"))
    tab.page.get_by_role("button", name="lco").click()
    playwright.expect(reading).to_have_text(re.compile(r"^[\d.]+$"))
    tab.page.keyboard.press("Enter")
    playwright.expect(reading).to_have_text(re.compile(r"^[\d.]+ · [\d.]+$"))


def test_methods_are_compared_with_a_chosen_baseline_and_downloaded(served: Served, tab: Tab) -> None:
    tab.open(f"/experiments/{served.filled.experiment}/compare")
    tab.page.select_option("select[name=baseline]", "sft")
    tab.page.wait_for_url("**/compare?*baseline=sft*")
    playwright.expect(tab.page.locator(".compared tbody tr")).to_have_count(2)
    for form, expected in (("CSV", "method,benchmark"), ("Markdown", "| lco |"), ("LaTeX", r"\begin{tabular}")):
        with tab.page.expect_download() as download:
            tab.page.get_by_role("link", name=form, exact=True).click()
        assert expected in download.value.path().read_text()


def test_a_run_lives_while_one_looks_at_it(served: Served, tab: Tab) -> None:
    run = served.filled.runs["lco", 1]
    tab.open(f"/runs/{run}")
    playwright.expect(tab.page.locator("#log pre")).to_contain_text("INFO")
    playwright.expect(tab.page.locator(".curve .latest").first).to_contain_text(".")
    tab.page.evaluate("window.__same = true")
    step = NUM_STEPS + 1
    identifier = update_run(served, run, progress_step=step, status_reason="changed")
    with served.database.write() as session:
        session.add(Metric(run_id=identifier, key="train/loss", step=step, value=123.5, attempt=1))
        session.add(LogChunk(run_id=identifier, attempt=1, chunk=1, text=f"a new line {HOSTILE}\r\n"))
    playwright.expect(tab.page.locator(".progress-line").first).to_contain_text(f"{step}")
    playwright.expect(tab.page.locator(".curve .latest").first).to_contain_text("123.5")
    playwright.expect(tab.page.locator("#log pre")).to_contain_text("a new line")
    assert tab.page.locator("#log pre").inner_text().count("INFO") == 1
    assert tab.page.evaluate("window.__same"), "the page was loaded anew"


def test_a_page_stops_asking_once_its_run_has_ended(served: Served, tab: Tab) -> None:
    run = served.filled.runs["ppo", 0]
    tab.open(f"/runs/{run}")
    playwright.expect(tab.page.locator("#live[data-every]")).to_have_count(1)
    update_run(served, run, state=RunState.FAILED, error_code="oom", error_message="out of memory")
    playwright.expect(tab.page.locator(".title .badge")).to_have_text("failed")
    playwright.expect(tab.page.locator("#live[data-every]")).to_have_count(0)


def test_an_open_specification_stays_open_while_the_page_refreshes(served: Served, tab: Tab) -> None:
    tab.open(f"/jobs/{served.filled.jobs['grpo']}")
    tab.page.click("summary")
    with tab.page.expect_response(
        lambda response: "/jobs/" in response.url and response.request.resource_type == "fetch"
    ):
        pass
    tab.page.wait_for_timeout(200)
    assert tab.page.locator("details pre").is_visible()


def test_cancel_asks_first_and_then_cancels(served: Served, tab: Tab) -> None:
    tab.open(f"/runs/{served.filled.runs['grpo', 0]}")
    button = tab.page.locator("button[data-post$='/cancel']")
    button.click()
    playwright.expect(button).to_have_text("Really cancel this run?")
    playwright.expect(tab.page.locator(".title .badge")).to_have_text("queued")
    button.click()
    playwright.expect(tab.page.locator(".title .badge")).to_have_text("cancelled")
    playwright.expect(tab.page.locator(".toast")).to_be_visible()


def test_a_one_time_link_signs_in_by_itself_and_once(served: Served, chromium: Any) -> None:
    with served.database.write() as session:
        row, _ = create_key(session, "link", "read")
        link = f"/login?link={create_link(session, row.id)}"
    first = new_tab(served, chromium)
    first.page.goto(served.address + link)
    first.page.wait_for_url(served.address + "/")
    first.check()
    second = new_tab(served, chromium)
    second.page.goto(served.address + link)
    playwright.expect(second.page.locator(".notice")).to_contain_text("used already")
    for tab in (first, second):
        tab.page.context.close()


def test_filters_apply_when_chosen_and_links_work_by_keyboard(served: Served, tab: Tab) -> None:
    tab.open("/jobs")
    tab.page.select_option("select[name=kind]", "evaluation")
    tab.page.wait_for_url("**/jobs?*kind=evaluation*")
    tab.page.keyboard.press("Tab")
    tab.open("/")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "live"


def test_an_ended_session_leads_to_the_sign_in(served: Served, tab: Tab) -> None:
    tab.open(f"/runs/{served.filled.runs['lco', 1]}")
    tab.page.context.clear_cookies()
    tab.page.wait_for_url(re.compile(r"/login\?next="))
    tab.complaints = [text for text in tab.complaints if "401" not in text]
