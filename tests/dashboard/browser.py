"""A real Chromium over a real server: how they are started, and a tab that writes down everything that goes wrong."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from api.app import create_app
from api.auth import create_key
from store.database import Database, make_engine
from store.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CURE = (
    "the dashboard is tested in a real Chromium and there is none in PATH: `make chromium` installs it on Debian and "
    "Ubuntu for root or where CI=true; otherwise have it installed once with `sudo apt-get install chromium`"
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
]
_WATCH = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Served:
    """A platform's API that listens, and what is in it."""

    address: str
    app: Any
    database: Database
    key: str
    filled: Any
    cookie: str = ""
    """A session, once somebody has signed in."""


@dataclass
class Tab:
    """A page of a browser, and everything that went wrong in it."""

    page: Any
    served: Served
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Writes down errors, dialogs and requests to elsewhere."""
        self.page.add_init_script(_WATCH)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._check_request)

    def _check_request(self, request: Any) -> None:
        if not request.url.startswith((self.served.address, "data:", "blob:")):
            self.complaints.append(f"off-origin {request.url}")

    def wrongs(self) -> list[str]:
        """What went wrong so far: complaints, refusals of the policy, text that ran as a script."""
        ran = [] if self.page.evaluate("window.__xss === undefined") else ["text ran as a script"]
        return [*self.complaints, *self.page.evaluate("window.__violations"), *ran]

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert self.wrongs() == [], self.page.url

    def open(self, path: str) -> None:
        """Goes to a page and lets its scripts work."""
        self.page.goto(self.served.address + path)
        self.page.wait_for_timeout(150)

    def sign_in(self) -> None:
        """Through the form, the first time; with the session it gave from then on."""
        name = "lco_session"
        if self.served.cookie:
            cookie = {"name": name, "value": self.served.cookie, "url": self.served.address}
            self.page.context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Strict"}])
            return
        self.open("/login")
        self.page.fill("input[name=key]", self.served.key)
        self.page.click("button.primary")
        self.page.wait_for_url(self.served.address + "/")
        (self.served.cookie,) = [one["value"] for one in self.page.context.cookies() if one["name"] == name]


@contextmanager
def serve(directory: Path, migrated: Path, fill: Any) -> Iterator[Served]:
    """A platform behind a real server on a free port.

    Args:
        fill: `(database, settings) -> what is in it`.
    """
    settings = Settings(data_dir=directory / "var", port=0)
    path = Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))
    path.parent.mkdir(mode=0o700)
    shutil.copyfile(migrated, path)
    database = Database(make_engine(settings))
    with database.write() as session:
        _, key = create_key(session, "admin", "admin")
    filled = fill(database, settings)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", app, database, key, filled)
    finally:
        server.should_exit = True
        thread.join(20)
        database.dispose()


@contextmanager
def chromium() -> Iterator[Any]:
    """One browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def new_tab(served: Served, browser: Any, **options: Any) -> Tab:
    """A tab of its own context, nobody signed in."""
    tab = Tab(browser.new_context(**options).new_page(), served)
    tab.page.set_default_timeout(15_000)
    tab.watch()
    return tab
