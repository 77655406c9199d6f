"""Fixtures of every room: settings in a directory of the test's own, migrated databases, real PostgreSQL and Redis.

The schema always comes from the migrations, which run once per session and engine; a test gets a copy.
"""

import os
import shutil
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from store.database import Database, make_engine, migrate
from store.settings import Settings
from tests import servers

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [
    name for name in os.environ if name.startswith("LCO_") and not name.startswith(("LCO_TEST_", "LCO_SHARED_"))
]:
    del os.environ[_name]  # what the developer's shell says is no part of a test


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an embedded platform in the test's own directory; its port is a free one."""
    return Settings(data_dir=tmp_path / "var", port=0)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file to which every migration was applied; copy it, do not open it."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("migrated"))
    migrate(settings)
    path = sqlite_path(settings)
    leftovers = [path.with_name(path.name + ending) for ending in ("-wal", "-shm")]
    assert not any(leftover.exists() and leftover.stat().st_size for leftover in leftovers), "the copy would lack it"
    return path


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server; use `postgres_database` for a database in it."""
    with servers.postgresql(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server, shared by the session's tests: give queues names of your own, or leave them empty."""
    with servers.redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server; use `s3_url` for a bucket of the test's own."""
    with servers.s3(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3_url(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty place in an S3 bucket, which this process and its children can reach."""
    import s3fs

    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"lco-{uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/runs"


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a PostgreSQL database to which every migration was applied; a template for others, never connected to."""
    with servers.new_database(postgres_url) as url:
        migrate(Settings(data_dir=tmp_path_factory.mktemp("unused"), database_url=url))
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with servers.new_database(postgres_url) as url:
        yield url


@pytest.fixture
def sqlite_settings(settings: Settings, migrated_sqlite: Path) -> Settings:
    """Settings whose SQLite database is migrated and empty."""
    path = sqlite_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(migrated_sqlite, path)
    return settings


@pytest.fixture
def postgres_settings(settings: Settings, postgres_url: str, migrated_postgres: str) -> Iterator[Settings]:
    """Settings whose PostgreSQL database is migrated and empty."""
    with servers.new_database(postgres_url, template=migrated_postgres) as url:
        yield settings.model_copy(update={"database_url": url})


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest) -> Settings:
    """Settings with a migrated, empty database: the test runs on each engine."""
    name = {"sqlite": "sqlite_settings", "postgresql": "postgres_settings"}[request.param]
    fixture = request.getfixturevalue(name)
    assert isinstance(fixture, Settings)
    return fixture


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """The URL of an empty database without any table: the test runs on each engine."""
    if request.param == "sqlite":
        return settings.sqlalchemy_url
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def database(sqlite_settings: Settings) -> Iterator[Database]:
    """A migrated, empty SQLite database."""
    yield from _open(sqlite_settings)


@pytest.fixture
def any_database(any_settings: Settings) -> Iterator[Database]:
    """A migrated, empty database: the test runs on each engine."""
    yield from _open(any_settings)


def _open(settings: Settings) -> Iterator[Database]:
    engine = make_engine(settings)
    try:
        yield Database(engine)
    finally:
        engine.dispose()


def sqlite_path(settings: Settings) -> Path:
    """The file of an embedded database."""
    return Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))


@pytest.fixture(scope="session")
def fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that also sees the installed dependencies, so that nothing is downloaded."""
    path = tmp_path_factory.mktemp("environment") / "fresh"
    venv.create(path, with_pip=True)
    site = sysconfig.get_path("purelib", vars={"base": str(path)})
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_experiment() -> dict[str, Any]:
    """The document of an experiment with a job of each kind, as small as one can be: a second of work each."""
    sums = {"name": "sums", "num_terms": 2, "max_term": 12, "num_problems": 30}
    sampling = {"max_tokens": 12}
    policy = {
        "name": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 1,
        "num_heads": 2,
        "max_positions": 32,
    }
    start = {"policy": policy, "prompts": sums, "steps": 40, "batch_size": 32, "optimizer": {"learning_rate": 0.01}}
    pairs = {"policy": "job:sft", "prompts": sums, "extraction": "last-equals", "sampling": sampling}
    reward_model = {"policy": "job:sft", "pairs": "job:pairs", "batch_size": 8, "optimizer": {"learning_rate": 0.001}}
    train = {
        "algorithm": {"name": "lco-kld", "advantage": {"name": "dpo", "reward_model": "job:rm"}},
        **{"policy": "job:sft", "prompts": sums, "reward": {"extraction": "last-equals"}, "sampling": sampling},
        **{"prompts_per_iteration": 8, "group_size": 2, "iterations": 3, "optimizer": {"learning_rate": 0.001}},
        "checkpoint_every_steps": 1,
    }
    benchmark = {"name": "sums", "problems": {**sums, "split": "test", "num_problems": 20}, "max_tokens": 12}
    measure = {"policy": "job:lco", "benchmarks": [benchmark], "decodings": ["t1.0", "greedy"], "eval_seeds": [0, 1]}
    stages = [
        ("sft", "sft", start),
        ("pairs", "pairs", pairs),
        ("rm", "dpo", reward_model),
        ("lco", "train", train),
        ("evaluation", "evaluation", measure),
    ]
    jobs = [{"name": name, "kind": kind, "seeds": [0], "config": config} for name, kind, config in stages]
    return {"name": "tiny", "jobs": jobs}
