"""The forms of schedules and alerts, in a real Chromium."""

import json

from tests.dashboard.browser import Served, Tab

JOB = {"name": "warm-up", "kind": "sft", "config": {"policy": {"name": "llama"}, "prompts": {"name": "sums"}}}


def test_an_endpoint_is_added_gets_a_new_secret_and_is_removed(served: Served, tab: Tab) -> None:
    page = tab.page
    tab.open("/settings/webhooks")
    page.get_by_label("URL").fill("https://new.example.com/hook")
    page.get_by_label("Events", exact=True).fill("job.failed, verdict.*")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("output", has_text="whsec_").wait_for()
    page.evaluate("window.htmx.trigger(document.querySelector('#live'), 'refresh')")
    page.get_by_role("link", name="https://new.example.com/hook").click()
    page.get_by_role("button", name="Rotate secret").click()
    page.get_by_role("button", name="Really make a new secret?").click()
    page.locator("#secret", has_text="whsec_").wait_for()
    page.get_by_role("button", name="Disable").click()
    page.get_by_role("button", name="Enable").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Really remove it and its log?").click()
    page.wait_for_url("**/settings/webhooks")
    assert page.get_by_role("link", name="https://new.example.com/hook").count() == 0


def test_a_schedule_is_added_fired_and_removed(served: Served, tab: Tab) -> None:
    page = tab.page
    tab.open("/schedules")
    page.get_by_label("Name").fill("by-form")
    page.get_by_label("Cron").fill("never")
    page.get_by_label("Job or experiment").fill("{")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("output", has_text="no JSON").wait_for()
    page.get_by_label("Job or experiment").fill(json.dumps(JOB))
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("output", has_text="/trigger/expression").wait_for()
    tab.complaints.clear()  # the browser's own word of the 422
    page.get_by_label("Cron").fill("30 2 * * *")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url("**/schedules/sch_*")
    page.get_by_role("button", name="Fire now").click()
    page.get_by_role("cell", name="submitted").wait_for()
    page.get_by_role("button", name="Suspend").click()
    page.get_by_role("button", name="Resume").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Really remove it and its fires?").click()
    page.wait_for_url("**/schedules")
    assert page.get_by_role("link", name="by-form").count() == 0
