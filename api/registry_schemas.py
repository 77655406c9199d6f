"""What the wire shows of the registry: lineage, registered models, collections, usage."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas import Wire
from lco.config import Config
from lco.hub_config import HubId, Revision


class LineageNode(Wire):
    """A run with what it published, a data set, or a model that came from elsewhere."""

    id: str
    """`run_...`, `ds_...`, `ckpt_...` of a local model, or `model:NAME` and `data:PATH` where there is no row."""
    type: Literal["run", "dataset", "model", "data"]
    name: str
    """Of the job, the data set, the model or the file."""
    kind: str
    """Of the job; empty for what no run made."""
    method: str
    seed: int | None
    state: str
    """Of the run."""
    job_id: str | None
    experiment_id: str | None
    checkpoint_id: str | None
    """The model that it published, or is."""
    is_deleted: bool
    """That model's files are no more."""
    sha256: str
    """Of the rows of a data set, or of the manifest of weights."""
    config_sha256: str
    """Of the job's configuration, every default written out."""
    content_sha256: str
    """Equal for runs that do the same: configuration, seed, inputs and program."""
    hub_id: str
    revision: str
    software: dict[str, Any]
    """Versions with which it ran; `program` is the hash of the platform's own source."""


class LineageEdge(Wire):
    """One thing was made from another."""

    source: str
    target: str
    role: str
    """The field of the target's configuration that names the source."""


class LineageRead(Wire):
    """Where a checkpoint comes from, and what was made of it."""

    object: Literal["lineage"] = "lineage"
    checkpoint_id: str
    subject: str
    """Id of its node."""
    nodes: list[LineageNode]
    """Each after those that it was made from."""
    edges: list[LineageEdge]
    is_truncated: bool
    """There is more than is shown."""


class CheckpointPatch(Config):
    """What is to change; what is left out stays."""

    pinned: bool | None = None
    """Whether it is kept whatever its age."""
    expires_in_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """Days from now; null: never by itself."""


class HubSource(Config):
    """A model on the operator's hub."""

    kind: Literal["hub"]
    hub_id: HubId
    """`OWNER/NAME`."""
    revision: Revision
    """The commit: 40 hexadecimal digits. A branch or tag can move, and is refused."""


class LocalSource(Config):
    """The directory of the model's name below the operator's models root."""

    kind: Literal["local"]


class ModelSpec(Config):
    """A model to register."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    """Jobs take it as `model:NAME`."""
    source: Annotated[HubSource | LocalSource, Field(discriminator="kind")]
    """Where it comes from."""


class ModelRead(Wire):
    """A model that came from elsewhere."""

    object: Literal["model"] = "model"
    id: str
    name: str
    source: str
    """What jobs name it by: `model:NAME`."""
    origin: Literal["hub", "local"]
    hub_id: str
    """Empty for a local one."""
    revision: str
    state: Literal["fetching", "ready", "failed"]
    """A job may name it while it is fetched, and waits."""
    job_id: str | None
    """The job that fetches it."""
    checkpoint_id: str | None
    """Its weights, once they are there: what results are measured on."""
    sha256: str
    """Of the manifest of its files; empty before they are there."""
    size_bytes: int
    created_at: datetime


class GcSpec(Config):
    """A collection."""

    dry_run: bool = False
    """Only say what would go."""


class GcItem(Wire):
    """Something that a collection removes."""

    kind: str
    """`state`, `model`, `removal` (files of what was deleted), `directory` (no row has it), `temporary` (never
    finished), `logs`, `metrics`, `events` or `completions`."""
    subject: str
    """Id of the checkpoint, or the path below its root; empty for records."""
    size_bytes: int
    count: int
    """1; for records the runs or jobs that lose them."""
    reason: str


class GcRead(Wire):
    """What a collection removed, or would remove."""

    object: Literal["collection"] = "collection"
    dry_run: bool
    items: list[GcItem]
    """The first thousand."""
    num_items: int
    size_bytes: int
    """Of all files that go, as far as it is known."""
    freed_bytes: int
    """What was on the disk and is no more; 0 for a dry run."""
    failures: list[str]
    """What could not be removed, and why; tried again the next time."""


class DiskRead(Wire):
    """The file system of the artifacts."""

    total_bytes: int
    free_bytes: int
    used_percent: float
    status: Literal["ok", "low", "full"]
    """`low` from `LCO_DISK_WARNING_PERCENT`, `full` from `LCO_DISK_FULL_PERCENT`: nothing new is taken."""


class KindUsage(Wire):
    """Room that one kind of things takes."""

    kind: Literal["states", "models", "datasets", "logs"]
    count: int | None
    """null for logs."""
    size_bytes: int


class ProjectUsage(Wire):
    """Room that one project takes."""

    name: str
    size_bytes: int
    kinds: list[KindUsage]


class RetentionRead(Wire):
    """Days after which things of a kind end by themselves; 0: never."""

    states: float
    newest_states: float
    logs: float
    metrics: float
    events: float
    completions: float


class UsageRead(Wire):
    """What takes how much room."""

    object: Literal["usage"] = "usage"
    projects: list[ProjectUsage]
    """The caller's own; for an admin key all of them."""
    size_bytes: int
    """Of these together."""
    database_bytes: int
    disk: DiskRead
    retention: RetentionRead
    collected_at: datetime | None
    """When garbage was last collected."""
