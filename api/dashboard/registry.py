"""Pages of the registry: checkpoints and registered models, one checkpoint with its lineage, and what takes room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api import registry_schemas, registry_views, views
from api.auth import requires
from api.dashboard.graph import BOX_HEIGHT, BOX_WIDTH, Graph, lay_out
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import REFRESH_SECONDS, page
from api.dashboard.tables import by_method
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.ids import parse_id
from api.pagination import cursor
from api.result_views import table_rows
from api.routes.storage import usage_read
from api.schemas import JobNode
from store.exports import ADAPTER, files_of_model
from store.ids import encode_id
from store.lineage import lineage_of
from store.repositories.jobs import Jobs
from store.repositories.models import Models
from store.repositories.records import Checkpoints, Results
from store.repositories.runs import Runs
from store.statistics import results_table

router = APIRouter(include_in_schema=False)

_NAME_LENGTH = 17
_FEW_MODELS = 100


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkpoint comes from, for a row."""

    name: str
    method: str
    seed: int | None
    href: str | None


@router.get("/checkpoints")
@requires("read")
def checkpoints(
    request: Request,
    database: DatabaseDep,
    after: Cursor = None,
    before: Cursor = None,
    kind: Annotated[str, Query(pattern="^(state|model)?$")] = "",
    pinned: Annotated[str, Query(pattern="^(yes)?$")] = "",
    deleted: Annotated[str, Query(pattern="^(yes)?$")] = "",
    experiment: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Checkpoints, newest first, and the models that came from elsewhere."""
    with database.read() as session:
        rows = Checkpoints(session).page(
            PER_PAGE,
            cursor("ckpt", after, "after"),
            cursor("ckpt", before, "before"),
            kind=kind or None,
            is_pinned=True if pinned else None,
            is_deleted=bool(deleted),
            experiment_id=parse_id("exp", experiment) if experiment else None,
        )
        data = views.checkpoints(session, rows.rows)
        runs = Runs(session).by_ids({row.run_id for row in rows.rows if row.run_id is not None})
        jobs = Jobs(session).by_ids({run.job_id for run in runs.values()})
        models = registry_views.models(session, Models(session).page(_FEW_MODELS).rows)
    origins = {}
    for item, row in zip(data, rows.rows, strict=True):
        run = None if row.run_id is None else runs[row.run_id]
        job = None if run is None else jobs[run.job_id]
        origins[item.id] = Origin(
            name=item.model or ("local" if job is None else job.name),
            method="" if job is None else job.method,
            seed=None if run is None or item.model else run.seed,
            href=None if run is None else f"/runs/{encode_id('run', run.id)}",
        )
    filters = {"kind": kind, "pinned": pinned, "deleted": deleted, "experiment": experiment}
    stated = {name: value for name, value in filters.items() if value}
    return page(
        request,
        "checkpoints.html",
        checkpoints=data,
        origins=origins,
        models=models,
        filters=filters,
        is_filtered=bool(stated),
        links=pager("/checkpoints", stated, rows, [item.id for item in data], after, before),
        twin="/v1/checkpoints",
        every=REFRESH_SECONDS if any(model.state == "fetching" for model in models) else 0,
    )


@router.get("/checkpoints/{ckpt_id}")
@requires("read")
def checkpoint(request: Request, database: DatabaseDep, settings: SettingsDep, ckpt_id: str) -> Response:
    """One checkpoint: where it comes from, what was measured on it, what it holds, and how long."""
    with database.read() as session:
        row = Checkpoints(session).get(parse_id("ckpt", ckpt_id))
        found = views.checkpoints(session, [row])[0]
        lineage = registry_views.lineage(ckpt_id, lineage_of(session, row))
        measured = Results(session).of_checkpoint(row.id)
        tables = by_method(table_rows(results_table(measured)))
        files = files_of_model(session, settings, row)
    subject = next(node for node in lineage.nodes if node.id == lineage.subject)
    return page(
        request,
        "checkpoint.html",
        checkpoint=found,
        subject=subject,
        graph=lineage_graph(lineage),
        is_truncated=lineage.is_truncated,
        tables=tables,
        files=[{"name": name, "sha256": sha, "size": size} for name, (sha, size) in sorted(files.items())],
        has_adapter=row.kind == "model" and any(name.startswith(f"{ADAPTER}/") for name in files),
        twin=f"/v1/checkpoints/{ckpt_id}",
    )


@dataclass(frozen=True, slots=True)
class LineageBox:
    """A node of a lineage, placed."""

    node: registry_schemas.LineageNode
    label: str
    note: str
    href: str | None
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Everything the template draws."""

    width: int
    height: int
    boxes: Sequence[LineageBox]
    edges: Sequence[Any]
    subject: str
    box_width: int = BOX_WIDTH
    box_height: int = BOX_HEIGHT


def lineage_graph(lineage: registry_schemas.LineageRead) -> LineageGraph:
    """A lineage, laid out as an experiment's jobs are: a box stands right of everything that it was made from."""
    needs: dict[str, list[str]] = {node.id: [] for node in lineage.nodes}
    for edge in lineage.edges:
        if edge.source not in needs[edge.target]:
            needs[edge.target].append(edge.source)
    nodes = {node.id: node for node in lineage.nodes}
    drawn: Graph = lay_out(
        [
            JobNode(
                id=node.id,
                name=node.id,
                kind=node.kind,
                method=node.method,
                status=node.state or "succeeded",
                needs=needs[node.id],
                runs=[],
            )
            for node in lineage.nodes
        ]
    )
    boxes = [
        LineageBox(
            nodes[box.job.id],
            _label(nodes[box.job.id].name),
            _note(nodes[box.job.id]),
            _href(lineage, nodes, box.job.id),
            box.x,
            box.y,
        )
        for box in drawn.boxes
    ]
    return LineageGraph(drawn.width, drawn.height, boxes, drawn.edges, lineage.subject)


def _label(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def _note(node: registry_schemas.LineageNode) -> str:
    if node.hub_id:
        return "model from the hub"
    if node.type == "run":
        seed = "" if node.seed is None else f", seed {node.seed}"
        return f"{node.kind}{seed}{', deleted' if node.is_deleted else ''}"
    return {"dataset": "data set", "model": "model", "data": "data file"}[node.type]


def _href(
    lineage: registry_schemas.LineageRead, nodes: Mapping[str, registry_schemas.LineageNode], name: str
) -> str | None:
    node = nodes[name]
    if node.type == "dataset":
        return f"/datasets/{node.id}"
    if node.checkpoint_id and not node.is_deleted:
        return f"/checkpoints/{node.checkpoint_id}"
    return f"/runs/{node.id}" if node.type == "run" and node.job_id else None


@router.get("/settings/usage")
@requires("read")
def usage(request: Request, settings: SettingsDep, principal: PrincipalDep) -> Response:
    """What takes how much room, and how long things are kept."""
    found = usage_read(request.app.state.database, settings, principal)
    most = max((project.size_bytes for project in found.projects), default=0)
    return page(request, "usage.html", usage=found, most=most, settings=settings, twin="/v1/usage")
