"""Pages in a real Chromium: what lives, what is chosen, what a button does."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import playwright.sync_api as playwright

from api.auth import create_key
from api.sessions import create_link
from store.ids import decode_id, encode_id
from store.models.job import Experiment, Job
from store.models.record import LogChunk, Metric
from store.models.run import Run
from store.states import RunState
from tests.dashboard.browser import CHROMIUM, CURE, Served, Tab, new_tab
from tests.dashboard.filling import HOSTILE, NUM_STEPS, STABLE_KEYS


def test_a_chromium_is_there() -> None:
    assert CHROMIUM is not None, CURE


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
    playwright.expect(tab.page.locator("#log pre[role=log]")).to_contain_text("INFO")
    playwright.expect(tab.page.locator(".curve .latest").first).to_contain_text(".")
    tab.page.evaluate("window.__same = true")
    step = NUM_STEPS + 1
    identifier = update_run(served, run, progress_step=step, status_reason="changed")
    with served.database.write() as session:
        session.add(Metric(run_id=identifier, key="train/loss", step=step, value=123.5, attempt=1))
        session.add(LogChunk(run_id=identifier, attempt=1, chunk=1, text=f"a new line {HOSTILE}\r\n"))
    playwright.expect(tab.page.locator(".progress-line").first).to_contain_text(f"{step}")
    playwright.expect(tab.page.locator(".curve .latest").first).to_contain_text("123.5")
    playwright.expect(tab.page.locator("#log pre[role=log]")).to_contain_text("a new line")
    assert tab.page.locator("#log pre[role=log]").inner_text().count("INFO") == 1
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


_REACHABLE = """() => [...document.querySelectorAll("a[href], button, summary, input, select, textarea")]
  .filter((one) => one.type !== "hidden" && !one.disabled && one.checkVisibility()).length"""
_FOCUSED = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const style = getComputedStyle(one);
  const isMarked = style.outlineStyle !== "none" || one.closest(".graph") !== null;
  return [one.matches("a[href], button, summary, input, select, textarea"), isMarked, one.outerHTML.slice(0, 120)];
}"""


def test_everything_that_acts_is_reached_by_keyboard_and_shows_where_one_is(served: Served, tab: Tab) -> None:
    for path in (
        f"/experiments/{served.filled.experiment}",
        f"/runs/{served.filled.runs['measure-lco', 0]}",
        "/datasets",
    ):
        tab.open(path)
        seen = 0
        for _ in range(400):
            tab.page.keyboard.press("Tab")
            focused = tab.page.evaluate(_FOCUSED)
            if focused is None:
                break
            is_control, is_marked, markup = focused
            assert is_marked, f"{path}: nothing shows that this is focused: {markup}"
            seen += is_control
        assert seen >= tab.page.evaluate(_REACHABLE), path


def test_on_a_narrow_screen_the_navigation_is_a_menu_that_the_keyboard_opens(served: Served, tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 400, "height": 700})
    tab.open("/jobs")
    entry = tab.page.get_by_role("link", name="Experiments", exact=True)
    playwright.expect(entry).to_be_hidden()
    tab.page.get_by_role("button", name=re.compile("^Jobs.*all pages")).focus()
    tab.page.keyboard.press("Enter")
    playwright.expect(entry).to_be_visible()
    tab.page.keyboard.press("Escape")
    playwright.expect(entry).to_be_hidden()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/experiments")


def test_a_job_draws_the_mean_of_its_seeds_or_each_and_says_how_many_they_are(served: Served, tab: Tab) -> None:
    tab.open(f"/jobs/{served.filled.jobs['sft']}")
    reading = tab.page.locator(".curve .latest").first
    playwright.expect(reading).to_contain_text("(n 2)")
    playwright.expect(tab.page.locator(".curve .note").first).to_contain_text("the step's loss")
    tab.page.get_by_role("button", name="each seed").click()
    playwright.expect(reading).to_contain_text(" · ")
    assert tab.page.locator(".curve-group > h3").all_inner_texts() == ["Outcome", "Policy", "Other"]


def test_a_log_is_searched_and_a_checkpoint_is_pinned(served: Served, tab: Tab) -> None:
    tab.open(f"/runs/{served.filled.runs['sft', 0]}")
    tab.page.fill("#log input[type=search]", "nothing like this")
    playwright.expect(tab.page.locator("#log output")).to_contain_text("0 of")
    tab.page.fill("#log input[type=search]", "info")
    playwright.expect(tab.page.locator("#log .found")).to_contain_text("1  INFO")
    keep = tab.page.locator("#checkpoints tr", has_text="model").locator("button[data-post]")
    keep.click()
    playwright.expect(keep).to_have_text("Unpin")


def test_a_document_is_checked_where_it_is_wrong_said_so_and_submitted(served: Served, tab: Tab) -> None:
    tab.open("/experiments/new")
    document = tab.page.locator("#document")
    right = document.input_value()
    document.fill(right.replace("steps = 40", "steps = -40"))
    tab.page.get_by_role("button", name="Check").click()
    playwright.expect(tab.page.locator(".problems")).to_contain_text("/jobs/0/config/steps")
    document.fill(right)
    tab.page.get_by_role("button", name="Check").click()
    playwright.expect(tab.page.locator("[data-jobs]")).to_contain_text("2 jobs, 4 runs")
    playwright.expect(tab.page.locator(".problems")).to_be_hidden()
    tab.page.get_by_role("button", name="Submit", exact=True).click()
    tab.page.wait_for_url(re.compile(r"/experiments/exp_"))
    tab.page.get_by_role("link", name="Clone").click()
    tab.page.wait_for_url("**/clone")
    document.fill(document.input_value().replace('"steps": 40', '"steps": 50'))
    tab.page.get_by_role("button", name="Check").click()
    playwright.expect(tab.page.locator("[data-changes]")).to_contain_text("/jobs/sft/config/steps")
    tab.page.get_by_role("button", name="Submit the copy").click()
    tab.page.wait_for_url(re.compile(r"/experiments/exp_"))
    playwright.expect(tab.page.locator(".facts")).to_contain_text("cloned from first")
    tab.complaints = [text for text in tab.complaints if "422" not in text]  # the browser's own word of the refusal


def test_outputs_are_sent_to_be_graded(served: Served, tab: Tab) -> None:
    tab.open("/scores")
    rows = b'{"id": "1", "completion": "it is \\\\boxed{4}", "reference": "4"}\n{"id": "2"\n'
    for content, told in ((rows, "line 2 is no JSON"), (rows[: rows.index(b"\n")], None)):
        file = {"name": "outputs.jsonl", "mimeType": "application/jsonl", "buffer": content}
        tab.page.set_input_files("input[type=file]", file)
        tab.page.get_by_role("button", name="Grade").click()
        if told:
            playwright.expect(tab.page.locator("form output")).to_contain_text(told)
    tab.page.wait_for_url(re.compile(r"/jobs/job_"))
    playwright.expect(tab.page.locator("h1")).to_have_text("score")


def test_a_prompt_is_sent_to_policies_and_its_page_opens(served: Served, tab: Tab) -> None:
    tab.open("/sample?policy=model:tiny")
    tab.page.locator("textarea").fill("1+1=\n---\n2+2=")
    tab.page.get_by_role("button", name="Sample").click()
    playwright.expect(tab.page.locator("form output")).to_contain_text("there is no imported model")
    models = Path(served.app.state.settings.models)
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "config.json").write_text("{}")
    tab.page.get_by_role("button", name="Sample").click()
    tab.page.wait_for_url(re.compile(r"/sample/job_"))
    playwright.expect(tab.page.locator(".facts")).to_contain_text("0 of 4 completions")
    playwright.expect(tab.page.locator(".asked")).to_have_text(["1+1=", "2+2="])
    tab.complaints = [text for text in tab.complaints if "422" not in text]  # the browser's own word of the refusal


def test_a_large_experiment_shows_no_graph_and_folds_its_jobs(served: Served, tab: Tab) -> None:
    with served.database.write() as session:
        large = Experiment(name="large", document={})
        session.add(large)
        session.flush()
        session.add_all(
            Job(experiment_id=large.id, name=f"job-{n}", kind="train", method="x", spec={}) for n in range(61)
        )
        identifier = encode_id("exp", large.id)
    tab.open(f"/experiments/{identifier}")
    assert tab.page.locator(".graph").count() == 0
    playwright.expect(tab.page.get_by_role("link", name="job-60")).to_be_hidden()
    tab.page.get_by_text("61, in the order in which they can run").click()
    playwright.expect(tab.page.get_by_role("link", name="job-60")).to_be_visible()
