"""What a request costs, beside a bare FastAPI route in the same minute: `python benchmarks/api_rates.py`.

Two processes serve on loopback: the whole platform over a filled SQLite (or `--database-url`), and an application with
nothing but `/ping`. Rounds of each goal alternate with rounds of `/ping`, so that a neighbour's load hits both. The
ratio is of the servers' CPU time per request: a server that is alone on its core answers in that proportion, and
clients that share the core with it change nothing. Rates and latencies, which they do change, stand beside it.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PING = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/ping")
async def ping():
    return {"status": "ok"}
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error")
"""


@dataclass
class Goal:
    """One kind of request, and the least share of `/ping`'s rate that it should reach."""

    name: str
    floor: float
    send: Callable[[http.client.HTTPConnection, int], http.client.HTTPResponse]
    rates: list[float] = field(default_factory=list)
    ping_cpu_seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


@dataclass
class Server:
    """A server process under measurement."""

    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def round_of(server: Server, goal: Goal, seconds: float, num_clients: int) -> tuple[float, list[float], float]:
    """Requests a second of some clients, each request's seconds, and the server's CPU seconds per request."""
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    lock = threading.Lock()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        own: list[float] = []
        count = 0
        while time.perf_counter() < deadline:
            began = time.perf_counter()
            response = goal.send(connection, number * 1_000_000 + count)
            response.read()
            if response.status >= 400 and response.status != 404:
                raise SystemExit(f"{goal.name}: {response.status}")
            own.append(time.perf_counter() - began)
            count += 1
        connection.close()
        with lock:
            latencies.extend(own)

    before = server.cpu_seconds()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / seconds, latencies, (server.cpu_seconds() - before) / max(len(latencies), 1)


@contextlib.contextmanager
def started(command: list[str], port: int, path: str, **environment: str) -> Iterator[Server]:
    """A server, from when it answers until the end of the block."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, env=os.environ | environment, stdout=nowhere, stderr=nowhere)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(20)


def goals_of(key: str, client: Any) -> list[Goal]:
    """What is measured, with its floor."""
    headers = {"Authorization": f"Bearer {key}"}
    spec = {"kind": "sft", "name": "warm-up", "seeds": [0, 1, 2, 3, 4]}
    spec["config"] = {"policy": {"name": "llama"}, "prompts": {"name": "sums"}}
    jobs = [client.submit(spec).id for _ in range(40)]

    def get(path: str, **more: str) -> Callable[[http.client.HTTPConnection, int], http.client.HTTPResponse]:
        def send(connection: http.client.HTTPConnection, number: int) -> http.client.HTTPResponse:
            connection.request("GET", path, headers={**headers, **more})
            return connection.getresponse()

        return send

    def post(connection: http.client.HTTPConnection, number: int) -> http.client.HTTPResponse:
        more = {"Content-Type": "application/json", "Idempotency-Key": f"{os.getpid()}-{time.time_ns()}-{number}"}
        connection.request("POST", "/v1/jobs", body=json.dumps(spec), headers={**headers, **more})
        return connection.getresponse()

    etag = etag_of(client, f"/v1/jobs/{jobs[0]}")
    return [
        Goal("no database: GET /healthz, whole stack", 0.70, get("/healthz")),
        Goal("no database, with a key: a benchmark that is none", 0.70, get("/v1/benchmarks/none")),
        Goal("GET /v1/jobs/ID", 0.25, get(f"/v1/jobs/{jobs[0]}")),
        Goal("the same, If-None-Match", 0.30, get(f"/v1/jobs/{jobs[0]}", **{"If-None-Match": etag})),
        Goal("GET /v1/jobs?limit=20", 0.10, get("/v1/jobs?limit=20")),
        Goal("POST /v1/jobs, five runs", 0.10, post),
    ]


def etag_of(client: Any, path: str) -> str:
    """The ETag of an object."""
    from api.transport import Call

    return str(client._send(Call("GET", path)).headers["etag"])


def measure(goals: list[Goal], served: Server, ping: Server, rounds: int, seconds: float, clients: int) -> None:
    """Fills the goals, round by round."""

    def bare(connection: http.client.HTTPConnection, number: int) -> http.client.HTTPResponse:
        connection.request("GET", "/ping")
        return connection.getresponse()

    pinging = Goal("/ping", 1.0, bare)
    for _ in range(rounds):
        for goal in goals:
            goal.ping_cpu_seconds.append(round_of(ping, pinging, seconds / 2, clients)[2])
            rate, latencies, cpu = round_of(served, goal, seconds, clients)
            goal.rates.append(rate)
            goal.latencies += latencies
            goal.cpu_seconds.append(cpu)


def report(goals: list[Goal], engine: str) -> str:
    """The table, in Markdown."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        f"{machine}, {engine}",
        "",
        "| request | of `/ping` | floor | CPU us/request | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for goal in goals:
        pairs = zip(goal.cpu_seconds, goal.ping_cpu_seconds, strict=True)
        ratio = statistics.median(bare / own for own, bare in pairs)
        ordered = sorted(goal.latencies)
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        cpu = statistics.median(goal.cpu_seconds) * 1e6
        mark = "" if ratio >= goal.floor else " (below)"
        lines.append(
            f"| {goal.name} | {ratio:.2f}{mark} | {goal.floor:.2f} | {cpu:,.0f} "
            f"| {statistics.median(goal.rates):,.0f} | {p50:.1f} | {p99:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    from api.auth import create_key
    from api.client import Client
    from api.serve import bind
    from store.database import Database, make_engine, migrate
    from store.settings import Settings

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database instead of SQLite")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory) / "var", database_url=options.database_url, port=0)
        migrate(settings)
        database = Database(make_engine(settings))
        with database.write() as session:
            key = create_key(session, "benchmark", "admin")[1]
        database.dispose()
        ports = []
        for _ in range(2):
            with contextlib.closing(bind(settings)) as bound:
                ports.append(bound.getsockname()[1])
        environment = {"LCO_DATA_DIR": str(settings.data_dir), "LCO_DATABASE_URL": options.database_url}
        api = started([sys.executable, "-m", "api.serve"], ports[0], "/healthz", LCO_PORT=str(ports[0]), **environment)
        with api as served, started([sys.executable, "-c", _PING, str(ports[1])], ports[1], "/ping") as ping:
            with Client(f"http://127.0.0.1:{ports[0]}", key, settings=settings) as client:
                goals = goals_of(key, client)
            measure(goals, served, ping, options.rounds, options.seconds, options.clients)
    print(report(goals, "PostgreSQL" if options.database_url else "SQLite"))


if __name__ == "__main__":
    main()
