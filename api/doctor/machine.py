"""Checks of the machine: interpreter, torch, disk, keys, grader, hub."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import httpx2
from packaging.requirements import Requirement

from api.doctor.findings import Finding, broken, ok, skipped, warning
from lco.grading.grader import Grader
from store.settings import Settings
from store.tracing import endpoint_of, is_available
from store.tracker_config import missing_package, tracker_configs

_CHILD_SECONDS = 120.0
_LEAST_FREE_BYTES = 1 << 30
_ROOM_BYTES = 10 << 30
_SLOW_FSYNC_SECONDS = 0.05
_NUM_FSYNCS = 15
_HUB_SECONDS = 3.0
_TORCH = """
import json, torch
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available(),
    "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
}))
"""


def python(settings: Settings) -> Finding:
    """The interpreter, and whether every package that the platform needs is installed in it."""
    told = f"Python {'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}"
    needed = [Requirement(text) for text in requires("lco-platform") or () if "extra ==" not in text]
    missing = [str(one) for one in needed if not _is_satisfied(one)]
    if missing:
        return broken(f"{told} lacks {', '.join(missing)}", "run `make install`")
    return ok(f"{told}, {len(needed)} packages")


def _is_satisfied(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def torch(settings: Settings) -> Finding:
    """torch as a run's process sees it, its CUDA build against the driver, and the GPUs that are to be handed out."""
    done = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_CHILD_SECONDS)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return broken(f"torch cannot be imported: {reason}", "run `make install`")
    found = json.loads(done.stdout)
    driver = _driver()
    told = f"torch {found['version']}, " + (f"CUDA {found['cuda']}" if found["cuda"] else "CPU build")
    if driver and not found["cuda"]:
        return warning(f"{told}; the machine has {driver}", "install torch's CUDA build to use the GPU")
    if driver and not found["available"]:
        cure = "update the NVIDIA driver, or install a torch built for an older CUDA"
        return broken(f"{told} cannot use {driver}", cure)
    wanted = settings.gpu_indices
    if missing := [index for index in wanted if index >= len(found["devices"])]:
        return broken(
            f"{told} sees {len(found['devices'])} GPUs; LCO_GPUS names {','.join(map(str, missing))}",
            "take the indices that `nvidia-smi -L` does not list out of LCO_GPUS",
        )
    if found["devices"] and not wanted:
        return warning(
            f"{told}; {len(found['devices'])} GPUs and none handed out",
            "set LCO_GPUS, such as LCO_GPUS=0, so that workers offer them",
        )
    return ok(f"{told}" + (f", {', '.join(found['devices'])}" if found["devices"] else ", no GPU"))


def _driver() -> str:
    """The NVIDIA driver in words; empty without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name, _, version = (done.stdout.strip().splitlines() or [""])[0].partition(",")
    return f"{name.strip()}, driver {version.strip()}" if not done.returncode and name else ""


def disk(settings: Settings) -> Finding:
    """Room where the platform writes."""
    places = dict.fromkeys(_existing(path) for path in (settings.data_dir.absolute(), settings.artifacts))
    free = {place: shutil.disk_usage(place).free for place in places}
    place, least = min(free.items(), key=lambda item: item[1])
    told = f"{least / 1e9:,.1f} GB free below {place}"
    if least < _LEAST_FREE_BYTES:
        return broken(told, "make room: runs end with `start` or `output` errors on a full disk")
    if least < _ROOM_BYTES:
        return warning(told, "a checkpoint of a 1B model takes up to 16 GB: make room, or set LCO_ARTIFACT_ROOT")
    return ok(told)


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def fsync(settings: Settings) -> Finding:
    """How long the disk takes to make a write last: every commit of SQLite waits for it."""
    place = _existing(settings.data_dir.absolute())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as stream:
            seconds = [_write_and_sync(stream.fileno()) for _ in range(_NUM_FSYNCS)]
    except OSError as error:
        return broken(f"{place} cannot be written: {error.strerror}", f"give this user the right to write to {place}")
    median = statistics.median(seconds)
    told = f"{median * 1000:.1f} ms (median of {_NUM_FSYNCS}) in {place}"
    if median > _SLOW_FSYNC_SECONDS:
        return warning(told, "put LCO_DATA_DIR on a faster local disk: no network file system, no SD card")
    return ok(told)


def _write_and_sync(descriptor: int) -> float:
    began = time.perf_counter()
    os.write(descriptor, b"x" * 4096)
    os.fsync(descriptor)
    return time.perf_counter() - began


def permissions(settings: Settings) -> Finding:
    """Who may read the data directory and the admin key."""
    open_to_others = []
    for path, mode in ((settings.data_dir, 0o700), (settings.data_dir / "admin-key", 0o600)):
        if not path.exists():
            continue
        if path.stat().st_mode & 0o077:
            open_to_others.append(f"chmod {mode:o} {path}")
        if not os.access(path, os.R_OK):
            return broken(f"{path} cannot be read by this user", "run as the user who runs the platform")
    if open_to_others:
        return broken("other users of this machine can read the admin key", "; ".join(open_to_others))
    if not settings.data_dir.exists():
        return skipped(f"{settings.data_dir.absolute()} does not exist yet; `lco up` makes it")
    return ok(f"{settings.data_dir.absolute()} and its keys are readable by their owner alone")


def grader(settings: Settings) -> Finding:
    """Whether answers can be compared in the sandboxed processes that rewards and benchmarks use."""
    with Grader(num_workers=1, wall_seconds=30.0) as one:
        grade = one.grade(r"\boxed{\frac{\sqrt{8}}{2}}", r"$\sqrt{2}$")
    if grade.verdict != "correct":
        return broken(f"sqrt(8)/2 against sqrt(2) gives {grade.verdict} ({grade.reason})", "run `make install`")
    return ok("formulas are compared in a process without network")


def hub(settings: Settings) -> Finding:
    """Whether models can be imported from the Hugging Face hub. Runs themselves never ask it."""
    if settings.hub_offline:
        return skipped("LCO_HUB_OFFLINE is set: models come from the workers' own caches")
    url = settings.hub_url.rstrip("/")
    try:
        status = httpx2.get(f"{url}/api/models?limit=1", timeout=_HUB_SECONDS).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        cure = "set LCO_HUB_URL to a mirror, or LCO_HUB_OFFLINE=true; models can be copied into `models/` by hand"
        return warning(f"{url} does not answer ({type(error).__name__})", cure)
    if status >= 400:
        return warning(f"{url} answers {status}", "check LCO_HUB_URL and the proxy")
    return ok(f"{url} answers")


def extras(settings: Settings) -> Finding:
    """Whether what the settings switch on is installed."""
    configs = tracker_configs(settings.trackers)
    if problems := [problem for config in configs if (problem := missing_package(config))]:
        return broken(problems[0].partition(":")[0], problems[0].partition(": ")[2])
    is_traced = bool(endpoint_of(os.environ))
    if is_traced and not is_available():
        cure = "pip install 'lco-platform[otel]'"
        return warning("OTEL_EXPORTER_OTLP_ENDPOINT is set; nothing is traced without OpenTelemetry's SDK", cure)
    if not configs and not is_traced:
        return skipped("LCO_TRACKERS and OTEL_EXPORTER_OTLP_ENDPOINT are empty")
    named = [config.kind for config in configs] + (["OpenTelemetry"] if is_traced else [])
    return ok(f"{', '.join(named)}: installed")
