"""The registry's rows, for the wire."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api import registry_schemas as schemas
from api.views import shown_id
from store.disk import Disk
from store.gc import Item, Report
from store.ids import encode_id
from store.lineage import Lineage, Node
from store.models.registry import Model
from store.repositories.models import Models
from store.settings import Settings
from store.usage import Used

_MOST_ITEMS = 1000


def lineage(checkpoint_id: str, found: Lineage) -> schemas.LineageRead:
    """A lineage."""
    return schemas.LineageRead(
        checkpoint_id=checkpoint_id,
        subject=found.subject,
        nodes=[_node(node) for node in found.nodes.values()],
        edges=[schemas.LineageEdge(source=edge.source, target=edge.target, role=edge.role) for edge in found.edges],
        is_truncated=found.is_truncated,
    )


def _node(node: Node) -> schemas.LineageNode:
    checkpoint = node.checkpoint
    return schemas.LineageNode.model_validate(
        {
            "id": node.id,
            "type": node.type,
            "name": node.name,
            "kind": node.kind,
            "method": node.method,
            "seed": node.seed,
            "state": node.state,
            "job_id": shown_id("job", node.job_id),
            "experiment_id": shown_id("exp", node.experiment_id),
            "checkpoint_id": None if checkpoint is None else encode_id("ckpt", checkpoint.id),
            "is_deleted": checkpoint is not None and checkpoint.deleted_at is not None,
            "sha256": node.sha256,
            "config_sha256": node.config_sha256,
            "content_sha256": node.content_sha256,
            "hub_id": node.hub_id,
            "revision": node.revision,
            "software": node.software,
        }
    )


def models(session: Session, rows: Sequence[Model]) -> list[schemas.ModelRead]:
    """Registered models."""
    states = Models(session).states(rows)
    found = []
    for row in rows:
        weights = states[row.id].checkpoint
        document = {
            "id": encode_id("mdl", row.id),
            "name": row.name,
            "source": f"model:{row.name}",
            "origin": row.origin,
            "hub_id": row.hub_id,
            "revision": row.revision,
            "state": states[row.id].state,
            "job_id": shown_id("job", row.job_id),
            "checkpoint_id": None if weights is None else encode_id("ckpt", weights.id),
            "sha256": "" if weights is None else weights.manifest_sha256,
            "size_bytes": 0 if weights is None else weights.size_bytes,
            "created_at": row.created_at,
        }
        found.append(schemas.ModelRead.model_validate(document))
    return found


def plan(items: Sequence[Item]) -> schemas.GcRead:
    """What a collection would remove."""
    return _collection(items, is_dry=True, freed_bytes=0, failures=[])


def report(found: Report) -> schemas.GcRead:
    """What a collection removed."""
    return _collection(found.items, is_dry=False, freed_bytes=found.freed_bytes, failures=found.failures)


def _collection(items: Sequence[Item], *, is_dry: bool, freed_bytes: int, failures: list[str]) -> schemas.GcRead:
    return schemas.GcRead(
        dry_run=is_dry,
        items=[
            schemas.GcItem(
                kind=item.kind,
                subject=item.subject,
                size_bytes=item.size_bytes,
                count=item.count,
                reason=item.reason,
            )
            for item in items[:_MOST_ITEMS]
        ],
        num_items=len(items),
        size_bytes=sum(item.size_bytes for item in items),
        freed_bytes=freed_bytes,
        failures=failures[:_MOST_ITEMS],
    )


def disk(found: Disk) -> schemas.DiskRead:
    """The disk."""
    return schemas.DiskRead(
        total_bytes=found.total_bytes,
        free_bytes=found.free_bytes,
        used_percent=found.used_percent,
        status="full" if found.is_full else "low" if found.is_low else "ok",
    )


def project_usage(name: str, used: Used) -> schemas.ProjectUsage:
    """Room that a project takes."""
    kinds = [
        schemas.KindUsage(kind="models", count=used.num_models, size_bytes=used.models),
        schemas.KindUsage(kind="states", count=used.num_states, size_bytes=used.states),
        schemas.KindUsage(kind="datasets", count=used.num_datasets, size_bytes=used.datasets),
        schemas.KindUsage(kind="logs", count=None, size_bytes=used.logs),
    ]
    return schemas.ProjectUsage(name=name, size_bytes=sum(kind.size_bytes for kind in kinds), kinds=kinds)


def retention(settings: Settings) -> schemas.RetentionRead:
    """How long things are kept."""
    return schemas.RetentionRead(
        states=settings.retention_state_days,
        newest_states=settings.retention_newest_state_days,
        logs=settings.retention_log_days,
        metrics=settings.retention_metric_days,
        events=settings.retention_event_days,
        completions=settings.retention_completion_days,
    )
