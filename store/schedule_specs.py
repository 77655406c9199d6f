"""What a schedule says: when (cron, or whenever something new appears), and what is submitted then."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, TypeAdapter

from lco.config import Config
from store.matrix import expand, is_matrix
from store.specs import ExperimentSpec, JobSpec, Metadata, Name

GRACE = timedelta(minutes=5)
"""A due time that is seen later than this was missed."""
_WINDOWS = (timedelta(days=2), timedelta(days=60), timedelta(days=800))
_SAMPLE = {"model": "model:sample", "name": "sample", "revision": "0" * 40}
_PLACEHOLDER = re.compile(r"\{found\.(model|name|revision)\}")
_JOB: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_EXPERIMENT: TypeAdapter[ExperimentSpec] = TypeAdapter(ExperimentSpec)


def _checked_cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("must have five fields: minute, hour, day of the month, month, day of the week")
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise ValueError("is no cron expression, or one that never comes true") from None
    return text


def _checked_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):  # also a path, a directory, a file that is none
        raise ValueError("must be an IANA time zone, such as Europe/Berlin or UTC") from None
    return text


class CronTrigger(Config):
    """At certain times of the clock on the wall."""

    kind: Literal["cron"]
    expression: Annotated[str, Field(max_length=200), AfterValidator(_checked_cron)]
    """Minute, hour, day of the month, month, day of the week: `30 2 * * 1-5`."""
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_checked_zone)] = "UTC"
    """Whose clock: an IANA name. A time that is skipped in spring fires right after the gap, one that comes twice in
    autumn the first time alone; what has a `*` in front of minute or hour goes on by real time."""
    catch_up: Literal["one", "none"] = "one"
    """After a time without the platform: `one` fires the newest missed time, `none` waits for the next one."""


class DirectoryTrigger(Config):
    """Whenever a model's directory appears below the models root."""

    kind: Literal["directory"]
    pattern: Annotated[str, Field(pattern=r"^[A-Za-z0-9._*?-]{1,128}$")] = "*"
    """Which names: `*` stands for any characters, `?` for one."""
    stable_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """A directory without a manifest is whole when no file of it has changed for so long."""
    poll_seconds: Annotated[int, Field(ge=2, le=86_400)] = 30
    """Time between two looks."""
    include_existing: bool = False
    """Whether what is there already counts as new."""


class HubTrigger(Config):
    """Whenever a branch or tag of a hub's repository comes to mean another commit."""

    kind: Literal["hub"]
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")]
    """`OWNER/NAME` on the hub."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$")] = "main"
    """The branch or tag."""
    poll_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    """Time between two questions."""
    include_existing: bool = False
    """Whether the commit of now counts as new."""


Trigger = Annotated[CronTrigger | DirectoryTrigger | HubTrigger, Field(discriminator="kind")]


class JobAction(Config):
    """Submits a job."""

    kind: Literal["job"]
    spec: dict[str, Any]
    """As `POST /v1/jobs` takes it. For what a watcher found stand `{found.model}` (what jobs name it by),
    `{found.name}` and `{found.revision}`."""


class ExperimentAction(Config):
    """Submits an experiment."""

    kind: Literal["experiment"]
    document: dict[str, Any]
    """As `POST /v1/experiments` takes it, with the same placeholders. With `reuse` (the default) runs that did the same
    before are taken over: only what changed is computed."""


class AliasSelection(Config):
    """The checkpoint that has a name when the schedule fires."""

    alias: Name


class NewestSelection(Config):
    """The newest published models."""

    newest: Annotated[int, Field(ge=1, le=20)]
    """So many of them."""
    job: Name | None = None
    """Only of jobs of this name; null for any."""
    metadata: Metadata = {}
    """Only of jobs whose `metadata` has all of these."""


class SuiteAction(Config):
    """Asks a regression suite for verdicts; what it has judged already is not judged again."""

    kind: Literal["suite"]
    suite: Annotated[str, Field(pattern=r"^suite_[0-9a-hjkmnp-tv-z]{26}$")]
    """Its id."""
    checkpoints: AliasSelection | NewestSelection | None = None
    """Which checkpoints; null, with a watcher, for the model that it found."""


Action = Annotated[JobAction | ExperimentAction | SuiteAction, Field(discriminator="kind")]
TRIGGER: TypeAdapter[CronTrigger | DirectoryTrigger | HubTrigger] = TypeAdapter(Trigger)
ACTION: TypeAdapter[JobAction | ExperimentAction | SuiteAction] = TypeAdapter(Action)


class ScheduleSpec(Config):
    """Something to be done at certain times, or whenever something new appears."""

    name: Name
    """For people; several schedules may have one."""
    trigger: Trigger
    """When."""
    action: Action
    """What."""
    concurrency: Literal["forbid", "allow"] = "forbid"
    """`forbid` skips a due time while what the last one began still goes on."""
    is_suspended: bool = False
    """Whether it waits for `resume`."""


def next_after(trigger: CronTrigger, moment: datetime) -> datetime | None:
    """The first due time after a moment, in UTC; None where none ever comes."""
    for due in CronSim(trigger.expression, moment.astimezone(ZoneInfo(trigger.time_zone))):
        found = due.astimezone(UTC)
        if found > moment:  # in the hour that comes twice, the first answer may lie in the past
            return found
    return None


def newest_due(trigger: CronTrigger, first: datetime, moment: datetime) -> datetime:
    """The newest due time up to a moment, given one of them."""
    zone = ZoneInfo(trigger.time_zone)
    for window in (*_WINDOWS, moment - first):
        start = max(first, moment - window)
        newest = first if start == first else None
        for due in CronSim(trigger.expression, start.astimezone(zone)):
            found = due.astimezone(UTC)
            if found > moment:
                break
            if found >= start and (newest is None or found > newest):
                newest = found
        if newest is not None:
            return newest
    return first


def first_look(trigger: CronTrigger | DirectoryTrigger | HubTrigger, moment: datetime) -> datetime | None:
    """When a new or resumed schedule is due first: a watcher at once."""
    return next_after(trigger, moment) if isinstance(trigger, CronTrigger) else moment


def filled(document: Any, values: dict[str, str]) -> Any:
    """A document with `{found.model}`, `{found.name}` and `{found.revision}` replaced in its texts, where known."""
    if isinstance(document, str):
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), document)
    if isinstance(document, dict):
        return {key: filled(value, values) for key, value in document.items()}
    if isinstance(document, list):
        return [filled(value, values) for value in document]
    return document


def job_of(action: JobAction, values: dict[str, str]) -> JobSpec:
    """The job of an action.

    Raises:
        pydantic.ValidationError: it is none.
    """
    found: JobSpec = _JOB.validate_json(json.dumps(filled(action.spec, values)))
    return found


def experiment_of(action: ExperimentAction, values: dict[str, str]) -> tuple[ExperimentSpec, dict[str, Any]]:
    """The experiment of an action, its matrix expanded; and its document.

    Raises:
        Invalid: the matrix is wrong.
        pydantic.ValidationError: it is none.
    """
    document = filled(action.document, values)
    plain = expand(document).document if is_matrix(document) else document
    return _EXPERIMENT.validate_json(json.dumps(plain)), document


def sample_values(trigger: CronTrigger | DirectoryTrigger | HubTrigger) -> dict[str, str]:
    """Stands for what a watcher finds, where an action is checked before."""
    return {} if isinstance(trigger, CronTrigger) else _SAMPLE
