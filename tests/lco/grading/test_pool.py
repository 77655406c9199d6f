"""The processes of the grader: bounded in time and memory, cut off from everything, gone with their parent."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lco.grading.grader import Grader
from lco.grading.pool import AlgebraFailure, AlgebraPool, OverBudget

HOSTILE = {
    "tower": r"9^{9^{9^{9}}}",
    "factorial": r"(10^8)!",
    "binomial": r"\binom{1000000000}{500000000}",
    "integral": r"\int_0^1 \frac{\sin(x^x)}{x^x} dx",
    "parentheses": "(" * 60 + "x+1" + ")" * 60,
}
BEYOND = {
    "digits": "9" * 200_000,
    "many digits": "9" * 4090 + "x" + "9" * 1000,
    "exponent": "x^{10001}",
    "e-notation": "1e10001",
    "factorial": "10001!",
    "nesting": r"\frac{1}{1+" * 65 + "x" + "}" * 65,
    "length": "x+" * 3000 + "1",
    "braces": r"\frac{1}{2",
}


@pytest.fixture(scope="module")
def grader():
    """A grader with the limits that users have."""
    with Grader(num_workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def pool():
    pool = AlgebraPool(1)
    pool.compare("x", "x")
    yield pool
    pool.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_a_second_and_a_half_at_most_and_the_next_one_nothing(grader, name):
    grader.grade_answer("x+1", "1+x+0")
    started = time.monotonic()
    grade = grader.grade_answer(HOSTILE[name], r"\frac{x}{2}")
    elapsed = time.monotonic() - started
    assert grade.verdict == "timeout"
    assert grade.value == 0.0
    assert "1.2 s" in grade.reason
    started = time.monotonic()
    assert grader.grade_answer("x+2", rf"2+x+0\cdot {time.monotonic_ns()}").is_correct
    assert elapsed < 1.5 + 0.5  # half a second for a machine with more to do than this
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("name", BEYOND)
def test_an_answer_beyond_the_bounds_is_skipped_without_a_process(name):
    with Grader(num_workers=1) as grader:
        started = time.monotonic()
        grade = grader.grade_answer(BEYOND[name], "x")
        assert (grade.verdict, grade.value) == ("skipped", 0.0)
        assert grade.reason
        assert len(grade.extracted) <= 4096
        assert grader.process_ids() == []
        assert time.monotonic() - started < 0.2


def test_an_answer_that_takes_too_much_memory_costs_itself_alone(monkeypatch):
    monkeypatch.setattr("lco.grading.pool.MEMORY_BYTES", 400 << 20)
    pool = AlgebraPool(1)
    try:
        with contextlib.suppress(OverBudget):
            assert not pool.compare(r"\begin{pmatrix}(10^{9})!\end{pmatrix}", "x").is_equal
        assert pool.compare("x+x", "2x").is_equal
    finally:
        pool.close()


CANARY = "/tmp/lco-grader-canary"
CODE = [
    f"__import__('os').system('touch {CANARY}')",
    rf"\text{{__import__('os').system('touch {CANARY}')}}",
    f"open('{CANARY}','w')",
    "().__class__.__bases__[0].__subclasses__()",
    f"exec(\"import os; os.system('touch {CANARY}')\")",
    r"\operatorname{eval}(1)",
    "lambda: __builtins__",
    f"${{__import__('pathlib').Path('{CANARY}').touch()}}$",
    r"\input{/etc/passwd}",
    r"\write18{touch /tmp/lco-grader-canary}",
]


def test_code_in_an_answer_is_never_run_and_changes_no_later_verdict(grader):
    Path(CANARY).unlink(missing_ok=True)
    for code in CODE:
        assert not grader.grade_answer(code, "1").is_correct
        assert grader.grade_answer(rf"\sqrt{{{len(code)}}}\cdot 1", rf"\sqrt{{{len(code)}}}").is_correct
        assert not grader.grade_answer(rf"\sqrt{{{len(code)}}}+1", rf"\sqrt{{{len(code)}}}").is_correct
    assert not Path(CANARY).exists()


def test_a_worker_has_no_secrets_no_network_and_no_files_of_its_parent(pool, monkeypatch):
    monkeypatch.setenv("LCO_TEST_SECRET", "secret")
    (server,) = pool.process_ids()
    for process in [server, *children_of(server)]:
        assert Path(f"/proc/{process}/environ").read_bytes() == b""
        links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
        assert all(link.startswith(("pipe:", "/dev/null")) for link in links), links
    if "namespace" in pool.version():
        assert os.readlink(f"/proc/{server}/ns/net") != os.readlink("/proc/self/ns/net")


def test_a_worker_refuses_to_reach_outside(tmp_path):
    code = textwrap.dedent(
        f"""
        import importlib.util, os, socket, subprocess
        spec = importlib.util.spec_from_file_location("worker", {str(Path("lco/grading/worker.py").absolute())!r})
        worker = importlib.util.module_from_spec(spec); spec.loader.exec_module(worker)
        worker.refuse_effects()
        attempts = [
            lambda: socket.socket(), lambda: subprocess.run(["true"]), lambda: os.system("true"), os.fork,
            lambda: open({str(tmp_path / "x")!r}, "w"), lambda: os.kill(1, 0), lambda: os.remove({str(tmp_path)!r}),
            lambda: os.execv("/bin/true", ["true"]), lambda: os.open({str(tmp_path / "y")!r}, os.O_CREAT | os.O_WRONLY),
        ]
        refused = 0
        for attempt in attempts:
            try: attempt()
            except PermissionError: refused += 1
        print(refused, len(attempts))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, attempts = done.stdout.split()
    assert refused == attempts


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_until_gone(processes: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        assert time.monotonic() < deadline, f"{processes} outlive their parent"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_process_ends_with_a_parent_that_is_killed_at_work():
    code = textwrap.dedent(
        r"""
        import threading, time
        from lco.grading.grader import Grader
        grader = Grader(num_workers=1)
        grader.grade_answer("x+x", "2x")
        threading.Thread(target=grader.grade_answer, args=(r"(10^8)!", "x")).start()
        time.sleep(0.3)
        print(*grader.process_ids(), flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        server = int(parent.stdout.readline())
        processes = [server, *children_of(server)]
        assert len(processes) == 2
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until_gone(processes, 3)


def test_close_ends_every_process():
    pool = AlgebraPool(1)
    assert pool.compare("x+x", "2x").is_equal
    (server,) = pool.process_ids()
    processes = [server, *children_of(server)]
    pool.close()
    wait_until_gone(processes, 1)
    with pytest.raises(AlgebraFailure, match="closed"):
        pool.compare("x", "y")


def test_a_worker_that_is_killed_is_replaced(pool):
    (server,) = pool.process_ids()
    os.kill(server, signal.SIGKILL)
    assert pool.compare("x+x", "2x").is_equal
    assert pool.process_ids() != [server]


def test_a_child_that_is_killed_costs_at_most_one_answer(pool):
    assert pool.compare("x+x", "2x").is_equal
    (child,) = children_of(pool.process_ids()[0])
    os.kill(child, signal.SIGKILL)
    try:
        assert pool.compare("x+x", "2x").is_equal
    except OverBudget:
        assert pool.compare("x+x", "2x").is_equal


def test_any_number_of_threads_may_ask_at_once(grader):
    def ask(number: int) -> bool:
        return grader.grade_answer(rf"\frac{{x+{number}}}{{2}}", rf"\frac{{x}}{{2}}+\frac{{{number}}}{{2}}").is_correct

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(60)))


def test_an_answer_that_hangs_stops_no_other_thread():
    with Grader(num_workers=1) as grader:
        grader.grade_answer("x+x", "2x")
        hanging = threading.Thread(target=grader.grade_answer, args=(HOSTILE["factorial"], "x"))
        hanging.start()
        gaps, last = [], time.monotonic()
        while hanging.is_alive():
            grader.grade_answer("12", "12.0")  # needs no process
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
            time.sleep(0.01)
        assert max(gaps) < 0.5


def test_a_fork_does_not_use_its_parents_processes(pool):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            pool.compare("x", "y")
        except AlgebraFailure:
            os.write(write, b"refused")
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as stream:
        assert stream.read() == b"refused"


def test_less_than_one_worker_is_refused():
    with pytest.raises(ValueError, match="num_workers"):
        AlgebraPool(0)
