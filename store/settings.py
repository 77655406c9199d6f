"""Settings of the platform, read once from `LCO_*` environment variables."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from lco.config import Config
from lco.endpoint_config import key_variable, origin_of
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
    """Servers that evaluations and rewards may ask, comma-separated: `ORIGIN` or `ORIGIN=VARIABLE`, where the key in
    the worker's VARIABLE goes there and nowhere else: `https://api.openai.com=OPENAI_API_KEY`. Empty: none."""
    webhook_origins: str = ""
    """Origins to which webhooks may go although they are on loopback or private addresses, or plain http, such as
    `http://127.0.0.1:9000`; comma-separated. Everywhere else they go by https to public addresses alone."""
    smtp_url: str = ""
    """Mail server for alerts: `smtp://USER@HOST:587`, which must speak STARTTLS unless `?starttls=never` ends it, or
    `smtps://USER@HOST`. Empty: no mail."""
    smtp_password: str = ""
    """Password of the user in `LCO_SMTP_URL`."""
    mail_from: str = ""
    """Sender of mails, such as `lco@example.com`."""
    rewards: str = ""
    """Python functions that training jobs may name as `python` rewards, comma-separated:
    `NAME=package.module:function`, importable where the workers run. Empty: none."""
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
    retention_state_days: NonNegativeFloat = 7.0
    """Days after its run's end for which a resumable state is kept; 0: for ever. The newest of a run that did not
    succeed has a time of its own."""
    retention_newest_state_days: NonNegativeFloat = 90.0
    """The same for the newest state of a run that did not succeed: all that is left of its work."""
    retention_log_days: NonNegativeFloat = 0.0
    """Days after its run's end for which a log is kept in the database; 0: for ever."""
    retention_metric_days: NonNegativeFloat = 0.0
    """The same for the curves of a run; its newest values stay."""
    retention_event_days: NonNegativeFloat = 0.0
    """The same for the events of a job, all of whose runs have ended."""
    retention_completion_days: NonNegativeFloat = 0.0
    """The same for the completions of an evaluation; its results stay, comparisons example by example do not."""
    gc_grace_hours: PositiveFloat = 24.0
    """Age from which what no row knows of (a directory, an unfinished file) counts as left behind."""
    disk_warning_percent: Annotated[float, Field(gt=0, le=100)] = 85.0
    """Use of the artifacts' disk from which the platform warns."""
    disk_full_percent: Annotated[float, Field(gt=0, le=100)] = 95.0
    """Use of the artifacts' disk from which nothing new is taken: no submission, no upload, no queued run."""
    hub_url: str = "https://huggingface.co"
    """The hub that models are imported from."""
    hub_token_variable: str = "HF_TOKEN"
    """Variable of the worker's environment whose token goes to the hub, for models that need one."""
    hub_offline: bool = False
    """Ask no hub: take models from the worker's own cache (`HF_HOME`) alone."""
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

    @field_validator("rewards")
    @classmethod
    def _rewards_are_declared(cls, text: str) -> str:
        _declared_rewards(text)
        return text

    @property
    def declared_rewards(self) -> dict[str, str]:
        """Names of functions that jobs may be rewarded by, with where they are."""
        return _declared_rewards(self.rewards)

    @field_validator("webhook_origins")
    @classmethod
    def _webhook_origins_are_origins(cls, text: str) -> str:
        _origins(text)
        return text

    @property
    def webhook_origin_set(self) -> frozenset[str]:
        """Origins to which webhooks may go wherever they lie."""
        return _origins(self.webhook_origins)

    @model_validator(mode="after")
    def _mail_is_whole(self) -> Self:
        if not self.smtp_url:
            return self
        parts = urlsplit(self.smtp_url)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/"):
            raise ValueError("LCO_SMTP_URL: must be smtp://[USER@]HOST[:PORT] or smtps://...")
        if parts.password is not None:
            raise ValueError("LCO_SMTP_URL: must not hold a password; set LCO_SMTP_PASSWORD")
        if parts.query not in {"", "starttls=required", "starttls=never"}:
            raise ValueError("LCO_SMTP_URL: may end in ?starttls=required or ?starttls=never")
        if parts.username and not self.smtp_password:
            raise ValueError("LCO_SMTP_PASSWORD: is needed for the user in LCO_SMTP_URL")
        if parts.username and parts.query == "starttls=never" and parts.hostname not in _LOOPBACK:
            raise ValueError("LCO_SMTP_URL: a password is not sent in the clear; use STARTTLS or smtps://")
        if "@" not in self.mail_from or not self.mail_from.isascii() or not self.mail_from.isprintable():
            raise ValueError("LCO_MAIL_FROM: must be the sender's address where LCO_SMTP_URL is set")
        return self

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


def _origins(text: str) -> frozenset[str]:
    found = set()
    for number, item in enumerate(_items(text), start=1):
        try:
            found.add(origin_of(item))
        except ValueError as error:
            raise ValueError(f"LCO_WEBHOOK_ORIGINS: entry {number} {error}") from None
    return frozenset(found)


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


def _declared_rewards(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, item in enumerate(_items(text), start=1):
        name, _, place = item.partition("=")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) or not re.fullmatch(r"[\w.]+:\w+", place):
            raise ValueError(f"LCO_REWARDS: entry {number} is not NAME=package.module:function")
        if name in found:
            raise ValueError(f"LCO_REWARDS: {name} stands twice")
        found[name] = place
    return found


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FOREIGN = frozenset({"LCO_PARENT_FD", "LCO_ATTEMPT", "LCO_TEST_DATABASE_URL", "LCO_TEST_REDIS_URL", "LCO_SHARED_DATA"})
"""Variables with the prefix that are no settings."""
