import json
import re
import shutil
from pathlib import Path

import pytest

from evaluation.report import main, write_report

HOSTILE = "</script><img src=x onerror=alert(1)> \ud800 \u2028 {placeholder} \x00"


def directory(path, verdicts, completion=HOSTILE):
    """A finished evaluation with one completion a verdict."""
    path.mkdir(exist_ok=True)
    row = {"benchmark": "sums", "metric": "pass@1", "decoding": "greedy", "eval_seed": None, "value": 0.5}
    (path / "results.json").write_text(json.dumps({"rows": [row], "grader": "<b>1</b>"}))
    with (path / "completions.jsonl").open("w") as stream:
        for number, verdict in enumerate(verdicts):
            record = {"benchmark": "sums", "decoding": "greedy", "eval_seed": None, "example_id": f"e{number}"}
            texts = {"prompt": "1+1=", "completion": completion, "reference": "2", "extracted": None}
            stream.write(json.dumps(record | texts | {"verdict": verdict, "value": float(verdict == "correct")}) + "\n")
    return path


def records(page: Path) -> list[dict[str, object]]:
    (block,) = re.findall(r'<script type="application/json" id="records">(.*?)</script>', page.read_text(), re.S)
    return json.loads(block)


def test_what_a_model_wrote_is_data_and_never_markup(tmp_path):
    page = tmp_path / "report.html"
    write_report(directory(tmp_path / "run", ["wrong"]), page)
    text = page.read_text()
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert "&lt;b&gt;1" in text
    assert records(page)[0]["completion"] == HOSTILE


def test_the_page_may_load_nothing_and_run_its_own_script_alone(tmp_path):
    page = tmp_path / "report.html"
    write_report(directory(tmp_path / "run", ["wrong"]), page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.read_text())
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=", page.read_text().replace("img src=x", ""))


def test_of_too_many_completions_the_correct_ones_are_left_out_first(tmp_path):
    page = tmp_path / "report.html"
    run = directory(tmp_path / "run", ["correct", "wrong", "correct", "no_answer"])
    assert write_report(run, page, limit=3) == 3
    assert [record["verdict"] for record in records(page)] == ["wrong", "no_answer", "correct"]
    assert "1 of 4 completions are left out" in page.read_text()


def test_the_command_writes_beside_the_results_and_names_what_is_missing(tmp_path, capsys):
    run = directory(tmp_path / "run", ["wrong"])
    assert main([str(run)]) == 0
    assert (run / "report.html").exists()
    assert main([str(tmp_path)]) == 2
    assert "no finished evaluation here" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="tests/dashboard names the cure")
def test_in_a_browser_verdicts_filter_and_nothing_is_reported(tmp_path):
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "report.html"
    write_report(directory(tmp_path / "run", ["wrong"] * 60 + ["correct"]), page_file)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri())
        assert page.locator("article").count() == 50
        page.get_by_role("button", name="Show more").click()
        assert page.locator("article").count() == 61
        page.get_by_label("Verdict").select_option("correct")
        assert page.locator("article").count() == 1
        assert page.locator("#count").inner_text() == "1 of 61 completions"
        assert complaints == []
        browser.close()
