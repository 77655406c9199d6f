"""`lco doctor`: what it finds in sound and in broken installations."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from api import cli
from api.commands.doctor import CHECKS
from api.doctor import machine, services
from store.settings import Settings


@pytest.fixture
def private(sqlite_settings: Settings) -> Settings:
    """A sound installation's settings."""
    key = sqlite_settings.data_dir / "admin-key"
    key.write_text("lco_sk_x_y\n")
    key.chmod(0o600)
    sqlite_settings.artifacts.mkdir()
    return sqlite_settings


def test_a_sound_installation_has_nothing_broken(
    private: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LCO_DATA_DIR", str(private.data_dir))
    monkeypatch.setenv("LCO_HUB_OFFLINE", "true")
    assert cli.main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    states = {row["check"]: row["state"] for row in document["checks"]}
    assert document["healthy"] is True
    assert list(states) == list(CHECKS)
    sound = ("python", "torch", "grader", "disk speed", "permissions", "database", "artifacts")
    assert [states[name] for name in sound] == ["ok"] * len(sound)
    assert states["broker"] == states["hub"] == states["clock"] == "skipped"


def test_what_is_broken_is_told_with_its_cure_and_exit_code_1(
    private: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LCO_DATA_DIR", str(private.data_dir))
    monkeypatch.setattr("api.commands.doctor.CHECKS", {"permissions": machine.permissions, "api": _raises})
    (private.data_dir / "admin-key").chmod(0o644)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"-> chmod 600 {private.data_dir / 'admin-key'}" in out
    assert "the check itself failed: RuntimeError: oh" in out
    assert "2 broken" in out


def _raises(settings: Settings) -> None:
    raise RuntimeError("oh")


def test_a_database_that_is_away_or_old_is_broken(settings: Settings) -> None:
    assert services.database(settings).state == "skipped"
    assert not settings.data_dir.exists()  # looking makes nothing
    away = settings.model_copy(update={"database_url": "postgresql://lco:secret@127.0.0.1:1/lco"})
    found = services.database(away)
    assert (found.state, "secret" in found.found) == ("broken", False)
    settings.data_dir.mkdir()
    (settings.data_dir / "lco.sqlite3").touch()
    found = services.database(settings)
    assert (found.state, found.cure) == ("broken", "run `lco migrate`")


def test_a_database_is_judged_on_each_engine(any_settings: Settings) -> None:
    assert services.database(any_settings).state == "ok"
    is_sqlite = not any_settings.database_url
    assert services.clock(any_settings).state == ("skipped" if is_sqlite else "ok")


@pytest.fixture
def configured(redis_url: str) -> Iterator[Callable[..., None]]:
    """Sets a value of the Redis server for the test's time."""
    with redis.Redis.from_url(redis_url) as client:
        before = (
            client.config_get("maxmemory-policy")["maxmemory-policy"],
            client.config_get("appendonly")["appendonly"],
        )

        def configure(policy: str, appendonly: str) -> None:
            client.config_set("maxmemory-policy", policy)
            client.config_set("appendonly", appendonly)

        yield configure
        configure(*before)


def test_a_broker_that_evicts_or_forgets_is_told(
    settings: Settings, redis_url: str, configured: Callable[..., None]
) -> None:
    with_broker = settings.model_copy(update={"broker_url": redis_url})
    configured("allkeys-lru", "no")
    assert services.broker(with_broker).state == "broken"
    configured("noeviction", "no")
    assert services.broker(with_broker).state == "warning"
    configured("noeviction", "yes")
    assert services.broker(with_broker).state == "ok"
    away = settings.model_copy(update={"broker_url": "redis://:secret@127.0.0.1:1/0"})
    found = services.broker(away)
    assert (found.state, "secret" in found.found) == ("broken", False)


def test_the_api_is_asked_with_the_key_that_the_command_line_sends(
    live: str, make_key: Callable[..., str], settings: Settings
) -> None:
    assert services.api(settings).state == "skipped"
    away = settings.model_copy(update={"url": "http://127.0.0.1:1", "api_key": "x"})
    assert services.api(away).state == "warning"
    wrong = away.model_copy(update={"url": live})
    assert services.api(wrong).state == "broken"
    found = services.api(wrong.model_copy(update={"api_key": make_key()}))
    assert "no worker is alive" in found.found


def test_keys_of_endpoints_and_a_full_disk_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    named = settings.model_copy(update={"endpoints": "https://api.openai.com=JUDGE_KEY"})
    assert services.endpoints(named).found.startswith("JUDGE_KEY not set")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    found = services.endpoints(named)
    assert (found.state, "secret" in found.found) == ("ok", False)
    monkeypatch.setattr(machine, "_LEAST_FREE_BYTES", 1 << 80)
    assert machine.disk(settings).state == "broken"


def test_an_object_store_is_tried(settings: Settings, tmp_path: Path) -> None:
    assert services.store(settings).state == "skipped"
    here = settings.model_copy(update={"artifact_store": f"file://{tmp_path}/objects"})
    assert services.store(here).state == "ok"
    assert list((tmp_path / "objects").iterdir()) == []
    (tmp_path / "objects").rmdir()
    (tmp_path / "objects").touch()
    assert services.store(here).state == "broken"


def test_gpus_that_torch_does_not_see_are_told(settings: Settings) -> None:
    found = machine.torch(settings.model_copy(update={"gpus": "97"}))
    assert found.state == "broken"
    assert "97" in found.found


def test_the_file_system_of_a_path_is_known() -> None:
    assert services.file_system(Path("/proc/self")) == "proc"


def test_doctor_loads_no_torch() -> None:
    code = "import sys, api.commands.doctor; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
