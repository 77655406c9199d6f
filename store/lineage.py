"""Where a checkpoint comes from, and what was made of it: a graph of runs, data sets and models, read from rows."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from store.errors import NotFound
from store.ids import decode_id, encode_id
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.registry import Model
from store.models.run import Attempt, Run, RunDependency
from store.naming import dataset_version
from store.sources import inputs_of, serving_run, source_job_id
from store.specs import Reference

MAX_NODES = 200
_CHECKPOINT = re.compile(r"\bckpt_[0-9a-z]{26}\b")


@dataclass(slots=True, kw_only=True)
class Node:
    """A run with what it published, or something that no run made."""

    id: str
    """`run_...`, `ds_...`, `ckpt_...` of a model that lies below the models root, or the source as a job names it."""
    type: str
    """`run`, `dataset`, `model` or `data`."""
    name: str
    """Of the job, the data set, the model or the file."""
    kind: str = ""
    """Of the job."""
    method: str = ""
    seed: int | None = None
    state: str = ""
    run_id: UUID | None = None
    job_id: UUID | None = None
    experiment_id: UUID | None = None
    checkpoint: Checkpoint | None = None
    """What it published, or the model's weights."""
    dataset_id: UUID | None = None
    sha256: str = ""
    """Of the rows of a data set, or of the manifest of weights."""
    config_sha256: str = ""
    """Of the job's configuration, every default written out."""
    content_sha256: str = ""
    """Equal for runs that do the same: configuration, seed, inputs and program."""
    hub_id: str = ""
    revision: str = ""
    software: dict[str, Any] = field(default_factory=dict)
    """Versions with which it ran."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One thing was made from another."""

    source: str
    """Id of a node."""
    target: str
    role: str
    """The field of the configuration that names it: `policy`, `algorithm.advantage.reward_model`."""


@dataclass(slots=True)
class Lineage:
    """A graph around one checkpoint."""

    subject: str
    """Id of its node."""
    nodes: dict[str, Node] = field(default_factory=dict)
    """Each after those that it was made from."""
    edges: list[Edge] = field(default_factory=list)
    is_truncated: bool = False
    """There is more than is shown."""


def lineage_of(session: Session, checkpoint: Checkpoint) -> Lineage:
    """Everything that a checkpoint was made from, up to what was imported, and everything made or measured from it."""
    walk = _Walk(session)
    subject = walk.up_from(checkpoint)
    walk.down_from(subject)
    found = walk.found
    found.subject = subject
    order = _in_order(found)
    return Lineage(subject, {name: found.nodes[name] for name in order}, found.edges, found.is_truncated)


class _Walk:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._by_name: dict[str, list[UUID]] | None = None
        self.found = Lineage("")

    def up_from(self, checkpoint: Checkpoint) -> str:
        """The node of a checkpoint, after those that it was made from."""
        if checkpoint.run_id is None:
            return self._local(checkpoint)
        return self._run(checkpoint.run_id, checkpoint)

    def down_from(self, subject: str) -> None:
        """What was made from a node, and from that, as far as there is room."""
        pending = [subject]
        while pending:
            node = self.found.nodes[pending.pop(0)]
            for run_id in self._users(node):
                name = encode_id("run", run_id)
                if name in self.found.nodes:
                    continue
                if len(self.found.nodes) >= MAX_NODES:
                    self.found.is_truncated = True
                    return
                self._run(run_id, None)
                pending.append(name)

    def _add(self, node: Node) -> str:
        self.found.nodes.setdefault(node.id, node)
        return node.id

    def _local(self, checkpoint: Checkpoint) -> str:
        model = None if checkpoint.model_id is None else self._session.get(Model, checkpoint.model_id)
        return self._add(
            Node(
                id=encode_id("ckpt", checkpoint.id),
                type="model",
                name=checkpoint.path if model is None else model.name,
                checkpoint=checkpoint,
                sha256=checkpoint.manifest_sha256,
            )
        )

    def _run(self, run_id: UUID, checkpoint: Checkpoint | None) -> str:
        name = encode_id("run", run_id)
        if name in self.found.nodes:
            return name
        run = self._session.get(Run, run_id)
        job = None if run is None else self._session.get(Job, run.job_id)
        if run is None or job is None:
            return self._add(Node(id=name, type="run", name="deleted", run_id=run_id))
        published = select(Checkpoint).where(
            Checkpoint.run_id == run_id, Checkpoint.kind == "model", Checkpoint.attempt == run.output_attempt
        )
        checkpoint = checkpoint or self._session.scalar(published.order_by(Checkpoint.step.desc()).limit(1))
        n = checkpoint.attempt if checkpoint is not None else run.output_attempt
        attempt = self._session.get(Attempt, (run_id, n)) if n else None
        config = json.dumps(job.spec.get("config"), sort_keys=True).encode()
        node = Node(
            id=name,
            type="run",
            name=job.name,
            kind=job.kind,
            method=job.method,
            seed=run.seed,
            state=run.state,
            run_id=run.id,
            job_id=job.id,
            experiment_id=job.experiment_id,
            checkpoint=checkpoint,
            sha256="" if checkpoint is None else checkpoint.manifest_sha256,
            config_sha256=hashlib.sha256(config).hexdigest(),
            content_sha256=run.content_hash or "",
            software={} if attempt is None else attempt.software,
        )
        if job.kind == "import":
            node.hub_id, node.revision = job.spec["config"]["hub_id"], job.spec["config"]["revision"]
            registered = select(Model.name).where(Model.job_id == job.id)
            node.name = self._session.scalar(registered) or node.hub_id.rpartition("/")[2]
        self.found.nodes[name] = node
        for reference in inputs_of(job.spec):
            source = self._source(reference, run.seed, job.experiment_id)
            if source is not None:
                self.found.edges.append(Edge(source, name, ".".join(reference.pointer)))
        return name

    def _source(self, reference: Reference, seed: int, experiment_id: UUID | None) -> str | None:
        """The node of an input, with everything behind it; None where nothing is known of it any more."""
        if reference.scheme == "checkpoint-id":
            checkpoint = self._session.get(Checkpoint, decode_id("ckpt", reference.value))
            return None if checkpoint is None else self.up_from(checkpoint)
        if reference.scheme == "dataset":
            return self._dataset(reference.value)
        if reference.scheme in ("model", "data"):
            text = f"{reference.scheme}:{reference.value}"
            return self._add(Node(id=text, type=reference.scheme, name=reference.value))
        try:
            job_id = source_job_id(self._session, reference, experiment_id)
        except NotFound:
            return None
        run = None if job_id is None else serving_run(self._session, job_id, seed)
        return None if run is None else self._run(run.id, None)

    def _dataset(self, value: str) -> str | None:
        """The node of a data set, after what its rows were taken from."""
        dataset = dataset_version(self._session, value)
        if dataset is None:
            return None
        name = encode_id("ds", dataset.id)
        if name in self.found.nodes:
            return name
        self.found.nodes[name] = Node(
            id=name,
            type="dataset",
            name=f"{dataset.name}@{dataset.version}",
            dataset_id=dataset.id,
            sha256=dataset.sha256,
        )
        source = None
        if dataset.origin.get("kind") == "split":
            source = self._dataset(str(dataset.origin["dataset"]).removeprefix("dataset:"))
        elif dataset.origin.get("kind") == "run":
            source = self._run(decode_id("run", str(dataset.origin["run"])), None)
        if source is not None:
            role = str(dataset.origin.get("part") or dataset.origin.get("output") or "")
            self.found.edges.append(Edge(source, name, role))
        return name

    def _users(self, node: Node) -> Iterator[UUID]:
        """Runs that take a node's output as an input: those that computed, not those that took over their outputs."""
        if node.run_id is not None:
            takers = [node.run_id, *self._session.scalars(select(Run.id).where(Run.reused_run_id == node.run_id))]
            query = (
                select(Run.id, Run.reused_run_id)
                .join(RunDependency, RunDependency.run_id == Run.id)
                .where(RunDependency.needs_id.in_(takers))
                .order_by(Run.id)
            )
            for run_id, reused_id in self._session.execute(query).all():
                if self._takes(reused_id or run_id, node):
                    yield reused_id or run_id
        if node.checkpoint is not None:
            yield from self._named().get(encode_id("ckpt", node.checkpoint.id), [])

    def _named(self) -> dict[str, list[UUID]]:
        """Runs by the checkpoints that their jobs take by id; read once, for no index leads there."""
        if self._by_name is None:
            text = cast(Job.spec, String)
            query = select(Run.id, Run.reused_run_id, text).join(Job, Job.id == Run.job_id)
            self._by_name = defaultdict(list)
            for run_id, reused_id, spec in self._session.execute(query.where(text.contains("ckpt_")).order_by(Run.id)):
                for name in dict.fromkeys(_CHECKPOINT.findall(spec)):
                    self._by_name[name].append(reused_id or run_id)
        return self._by_name

    def _takes(self, run_id: UUID, node: Node) -> bool:
        """Whether a run that waited for a node also takes its output: `after` alone makes no lineage."""
        run = self._session.get(Run, run_id)
        job = None if run is None else self._session.get(Job, run.job_id)
        if run is None or job is None:
            return False
        for reference in inputs_of(job.spec):
            if reference.scheme not in ("job-name", "job-id"):
                continue
            try:
                job_id = source_job_id(self._session, reference, job.experiment_id)
            except NotFound:
                continue
            serving = None if job_id is None else serving_run(self._session, job_id, run.seed)
            if serving is not None and node.run_id in (serving.id, serving.run_id):
                return True
        return False


def _in_order(found: Lineage) -> list[str]:
    """Ids of nodes, each after those that it was made from."""
    needs: dict[str, set[str]] = {name: set() for name in found.nodes}
    for edge in found.edges:
        if edge.source != edge.target:
            needs[edge.target].add(edge.source)
    ordered: list[str] = []
    while needs:
        ready = [name for name, waits in needs.items() if not waits & needs.keys()] or [next(iter(needs))]
        ordered += ready
        for name in ready:
            del needs[name]
    return ordered
