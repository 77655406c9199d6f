"""Tests of `api/local_services.py`: real servers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from api.local_services import forget, start_postgresql, start_redis

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the platform runs on Linux")


def test_postgresql_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    try:
        for expected in (0, 1):
            server = start_postgresql(tmp_path)
            try:
                with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
                    connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
                    assert connection.execute("SELECT count(*) FROM kept").fetchone() == (expected,)
                    connection.execute("INSERT INTO kept VALUES (1)")
            finally:
                server.stop()
            assert server.child.process.returncode == 0
    finally:
        forget(tmp_path)


def test_postgresql_refuses_a_wrong_password(postgres_url: str) -> None:
    if "LCO_TEST_DATABASE_URL" in os.environ:
        pytest.skip("the server is the developer's own")
    address = postgres_url.replace("+psycopg", "")
    credentials, _, host = address.rpartition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{credentials}x@{host}")


_STARTS_AND_IS_KILLED = """
import os, sys
from pathlib import Path
from api.local_services import start_redis
print(start_redis(Path(sys.argv[1])).child.process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_server_ends_with_the_process_that_started_it_even_by_kill_9(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    starter = subprocess.run(
        [sys.executable, "-c", _STARTS_AND_IS_KILLED, str(tmp_path)], capture_output=True, text=True, cwd=root
    )
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    pid = int(starter.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its starter"
        time.sleep(0.05)


def test_a_server_that_cannot_start_says_what_its_log_says(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    (tmp_path / "appendonly.aof").mkdir()
    with pytest.raises(RuntimeError, match="did not start"):
        start_redis(tmp_path)
