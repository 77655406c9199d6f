"""`make screenshots`: the pictures of the documentation, taken of seeded data in a real Chromium.

Texts depend neither on the day nor on the machine: the clock of the pages stands still, and dates are told as of
2 March 2026, but for those on the time line of a suite.
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api import views
from api.dashboard import words
from store.database import migrate
from store.ids import decode_id
from store.models.base import utc_now
from store.models.run import Run
from store.settings import Settings
from tests.dashboard import browser
from tests.dashboard.filling_alerts import fill_alerts
from tests.dashboard.judging import judge
from tests.dashboard.showcase import Shown, show

WIDTH = 1280
MOST_BYTES = 300_000
_TOLD = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""What the pages say the time is."""


def pictures(shown: Shown) -> dict[str, tuple[str, int]]:
    """Name -> address of the page, and the height of the picture."""
    return {
        "home": ("/", 900),
        "experiment": (f"/experiments/{shown.experiment}", 980),
        "stability": (f"/experiments/{shown.experiment}/stability", 780),
        "compare": (f"/experiments/{shown.experiment}/compare?baseline=ppo", 900),
        "job": (f"/jobs/{shown.jobs['lco-kld']}", 980),
        "run": (f"/runs/{shown.runs['lco-kld', 0]}", 1080),
        "completions": (f"/runs/{shown.runs['eval-lco-kld', 0]}#completions", 900),
        "checkpoints": ("/checkpoints", 900),
        "results": (f"/results?experiment={shown.experiment}", 620),
    }


def _more(served: browser.Served) -> dict[str, tuple[str, int]]:
    """Pictures of what is added last, so that it stands on no other one: a suite with its verdicts, schedules."""
    places = [("lco-kld", 0), ("lco-lch", 0), ("eval-sft", 0), ("eval-lco-kld", 0)]
    with served.database.write() as session:
        runs = [session.get(Run, decode_id("run", served.filled.runs[place])) for place in places]
        suite, _ = judge(session, runs, "Every new checkpoint, against the champion", utc_now())
        fill_alerts(session, served.filled.jobs["lco-kld"], "nothing new")
    return {"benchmarks": (f"/benchmarks/{suite}", 900), "schedules": ("/schedules", 620)}


def main(folder: Path, names: list[str]) -> None:
    """Takes the pictures, or those of some names.

    Raises:
        RuntimeError: something went wrong in a page, or a picture is too large.
    """
    moment = utc_now()
    words.utc_now = views.utc_now = lambda: moment
    words.FILTERS["exactly"] = lambda at: words.exactly(_TOLD + (at - moment))
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(data_dir=Path(place) / "empty")
        migrate(settings)
        migrated = Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))
        with browser.serve(Path(place), migrated, show) as served, browser.chromium() as started:
            options: dict[str, Any] = {"viewport": {"width": WIDTH, "height": 800}, "reduced_motion": "reduce"}
            tab = browser.new_tab(served, started, color_scheme="light", **options)
            tab.sign_in()
            tab.page.clock.set_fixed_time(moment)
            for name, (address, height) in pictures(served.filled).items():
                if not names or name in names:
                    _take(tab, address, height, folder / f"{name}.png")
            for name, (address, height) in _more(served).items():
                if not names or name in names:
                    _take(tab, address, height, folder / f"{name}.png")


def _take(tab: browser.Tab, address: str, height: int, path: Path) -> None:
    tab.page.set_viewport_size({"width": WIDTH, "height": height})
    tab.open(address)
    if tab.page.locator("#curves").count():
        tab.page.locator(".curve canvas").first.wait_for()
    tab.page.wait_for_timeout(600)
    if wrongs := tab.wrongs():
        raise RuntimeError(f"{address}: {wrongs}")
    tab.page.screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    print(f"{path}: {size // 1000} kB")
    if size > MOST_BYTES:
        raise RuntimeError(f"{path} has {size} bytes, {MOST_BYTES} at most: lower its height")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
