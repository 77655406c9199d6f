"""The dashboard over a real application and database, empty or filled; each is made once."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.auth import Scope, create_key
from api.sessions import create_link
from store.database import Database, make_engine
from store.settings import Settings
from tests.dashboard import browser
from tests.dashboard.browser import Served, Tab
from tests.dashboard.filling import Filled, fill

ORIGIN = "http://127.0.0.1:8642"


@dataclass(frozen=True)
class Site:
    """An application, a browser that does not follow redirects, and an admin key."""

    client: TestClient
    database: Database
    key: str

    def sign_in(self, key: str | None = None) -> None:
        """Gives the browser a session."""
        answer = self.client.post("/login", data={"key": key or self.key}, headers={"Origin": ORIGIN})
        assert answer.status_code == 303, answer.text

    def new_key(self, scope: Scope) -> str:
        """Another API key."""
        with self.database.write() as session:
            return create_key(session, scope, scope)[1]

    def new_link(self) -> str:
        """The token of a one-time login link."""
        with self.database.write() as session:
            row, _ = create_key(session, "link", "read")
            return create_link(session, row.id)


def new_site(directory: Path, migrated: Path) -> Iterator[Site]:
    """An application over a database of its own."""
    settings = Settings(data_dir=directory / "var", port=0)
    path = Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))
    path.parent.mkdir(mode=0o700)
    shutil.copyfile(migrated, path)
    database = Database(make_engine(settings))
    with database.write() as session:
        _, key = create_key(session, "admin", "admin")
    headers = {"Accept": "text/html"}
    with TestClient(create_app(settings), ORIGIN, headers=headers, follow_redirects=False) as client:
        yield Site(client, database, key)
    database.dispose()


@pytest.fixture(scope="session")
def empty_site(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Site]:
    """An application without any job."""
    yield from new_site(tmp_path_factory.mktemp("empty"), migrated_sqlite)


@pytest.fixture(scope="session")
def filled_site(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[tuple[Site, Filled]]:
    """An application with an experiment in every state, its texts hostile."""
    for site in new_site(tmp_path_factory.mktemp("filled"), migrated_sqlite):
        yield site, fill(site.database, site.client.app.state.settings)  # type: ignore[attr-defined]


@pytest.fixture
def empty(empty_site: Site) -> Site:
    """The empty application, nobody signed in."""
    empty_site.client.cookies.clear()
    return empty_site


@pytest.fixture
def site(filled_site: tuple[Site, Filled]) -> Site:
    """The filled application, nobody signed in."""
    filled_site[0].client.cookies.clear()
    return filled_site[0]


@pytest.fixture
def filled(filled_site: tuple[Site, Filled]) -> Filled:
    """Where things are in the filled application."""
    return filled_site[1]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the tests of a file. Where there is none, one test fails and says so, the others skip.

    Not for a session: while it lives the process has a running event loop, in which others cannot start theirs.
    """
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium; test_a_chromium_is_there names the cure")
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Served]:
    """A filled platform behind a real server on a free port; what a test changes, other files' tests do not see."""
    with browser.serve(tmp_path_factory.mktemp("served"), migrated_sqlite, fill) as running:
        yield running


@pytest.fixture
def tab(served: Served, chromium: Any) -> Iterator[Tab]:
    """A signed-in tab; nothing may have gone wrong at its end."""
    opened = browser.new_tab(served, chromium)
    opened.sign_in()
    yield opened
    opened.check()
    opened.page.context.close()
