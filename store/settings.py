"""Settings of the platform, read once from `LCO_*` environment variables."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from evaluation.endpoint_config import key_variable, origin_of
from lco.config import Config
from store.tracker_config import tracker_configs


class Settings(Config):
    """One field per variable `LCO_<NAME>`; the only place that reads the environment."""

    data_dir: Path = Path("var")
    """Everything the embedded platform writes: database, artifacts, keys, logs. Made with mode 0700."""
    database_url: str = ""
    """SQLAlchemy URL; empty for SQLite in `data_dir`. Production: `postgresql+psycopg://...`."""
    broker_url: str = ""
    """`redis://...` switches dispatch to Celery; empty uses the local loop that polls SQL."""
    artifact_root: Path = Path()
    """Run directories; `data_dir/artifacts` when empty. Shared by all workers and the API."""
    artifact_store: str = ""
    """Object store that the machines share instead of `artifact_root`, such as `s3://BUCKET/PREFIX` (credentials and
    endpoint come from the usual AWS_ variables): published run directories, checkpoints and uploaded data sets."""
    models_root: Path = Path()
    """Imported models, one directory a name; `data_dir/models` when empty."""
    data_root: Path = Path()
    """Data files that jobs may name as `data:RELATIVE/PATH`; `data_dir/data` when empty."""
    dataset_max_bytes: PositiveInt = 100_000_000
    """Largest upload of a data set, and most bytes of its rows as JSON Lines."""
    host: str = "127.0.0.1"
    """Address the API binds. Anything but loopback is refused while no API key exists."""
    port: int = Field(default=8642, ge=0, le=65535)
    """Port of the API; 0 takes a free one."""
    allowed_hosts: str = "127.0.0.1,localhost,[::1]"
    """Host headers accepted, comma-separated."""
    secure_cookies: bool = False
    """Send the dashboard's session cookie over HTTPS alone; set it where a proxy in front of the API serves HTTPS."""
    slots: PositiveInt = 2
    """Runs that a worker supervises at a time."""
    labels: str = ""
    """Labels that a worker offers, comma-separated."""
    gpus: str = ""
    """GPU indices that a worker hands out, comma-separated."""
    queues: str = ""
    """Queues a worker serves, comma-separated; empty for `lco.cpu`, and `lco.gpu` where it has GPUs."""
    endpoints: str = ""
    """Servers that evaluations may ask, comma-separated: `ORIGIN` or `ORIGIN=VARIABLE`, where the key in the worker's
    VARIABLE goes there and nowhere else: `https://api.openai.com=OPENAI_API_KEY`. Empty: none."""
    lease_seconds: PositiveFloat = 20.0
    """Silence of a heartbeat counter after which an attempt is lost, on the reaper's own clock."""
    beat_seconds: PositiveFloat = 2.0
    """Time between two heartbeats."""
    stop_seconds: PositiveFloat = 60.0
    """Time a run has to checkpoint after SIGTERM before it is killed."""
    poll_seconds: PositiveFloat = 0.1
    """Time between two looks at the queue while idle."""
    max_infra_failures: PositiveInt = 5
    """Attempts that infrastructure may end before the run fails."""
    trackers: str = ""
    """Trackers that `python -m worker.mirror` copies metrics to, comma-separated: `tensorboard:DIR`, `mlflow:URI`,
    `wandb:PROJECT`. Empty: none."""
    log_format: Literal["text", "json"] = "text"
    """Form of the API's and the workers' own log: `text`, or `json` for one object a line."""
    api_key: str = ""
    """Key that the command line and the client send; empty reads `data_dir/admin-key`."""
    url: str = ""
    """Address of the API for the command line and the client; empty reads `data_dir/api-url`."""

    @classmethod
    def from_environment(cls, **overrides: object) -> "Settings":
        """The settings of this process; keyword arguments win over the environment.

        Raises:
            ValueError: a variable does not parse, or `LCO_<NAME>` is no setting.
        """
        prefix = "LCO_"
        values = {
            name.removeprefix(prefix).lower(): value
            for name, value in os.environ.items()
            if name.startswith(prefix) and name not in _FOREIGN
        }
        values.update({name: str(value) for name, value in overrides.items()})
        return cls.model_validate(values, strict=False)

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL with its driver; SQLite in `data_dir` where none is set."""
        if not self.database_url:
            return f"sqlite:///{self.data_dir.absolute() / 'lco.sqlite3'}"
        for scheme in ("postgresql://", "postgres://"):
            if self.database_url.startswith(scheme):
                return "postgresql+psycopg://" + self.database_url.removeprefix(scheme)
        return self.database_url

    @property
    def artifacts(self) -> Path:
        """Absolute path of the artifact root."""
        return self._below_data_dir(self.artifact_root, "artifacts")

    @property
    def models(self) -> Path:
        """Absolute path of the imported models."""
        return self._below_data_dir(self.models_root, "models")

    @property
    def data(self) -> Path:
        """Absolute path of the data files that jobs may name."""
        return self._below_data_dir(self.data_root, "data")

    @property
    def gpu_indices(self) -> list[int]:
        """GPUs that a worker hands out.

        Raises:
            ValueError: `gpus` is no list of different indices.
        """
        indices = [int(item) for item in _items(self.gpus)]
        if len(set(indices)) != len(indices) or any(index < 0 for index in indices):
            raise ValueError(f"LCO_GPUS: {self.gpus!r} is no list of different GPU indices")
        return indices

    @field_validator("trackers")
    @classmethod
    def _trackers_are_known(cls, text: str) -> str:
        tracker_configs(text)
        return text

    @field_validator("endpoints")
    @classmethod
    def _endpoints_are_origins(cls, text: str) -> str:
        _endpoint_keys(text)
        return text

    @property
    def endpoint_keys(self) -> dict[str, frozenset[str]]:
        """Each server that evaluations may ask, by its origin, with the variables whose keys may go there."""
        return _endpoint_keys(self.endpoints)

    @property
    def label_list(self) -> list[str]:
        """Labels that a worker offers."""
        return _items(self.labels)

    @property
    def queue_list(self) -> list[str]:
        """Queues that a worker serves."""
        return _items(self.queues) or ["lco.cpu", *(["lco.gpu"] if self.gpu_indices else [])]

    def _below_data_dir(self, stated: Path, name: str) -> Path:
        return (self.data_dir / name if stated == Path() else stated).absolute()


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _endpoint_keys(text: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for number, item in enumerate(_items(text), start=1):
        url, _, variable = item.partition("=")
        try:
            origin = origin_of(url.strip())
            names = frozenset({key_variable(variable.strip())} if variable else ())
        except ValueError as error:
            raise ValueError(f"LCO_ENDPOINTS: entry {number} {error}") from None
        found[origin] = found.get(origin, frozenset()) | names
    return found


_FOREIGN = frozenset({"LCO_PARENT_FD", "LCO_ATTEMPT", "LCO_TEST_DATABASE_URL", "LCO_TEST_REDIS_URL", "LCO_SHARED_DATA"})
"""Variables with the prefix that are no settings."""
