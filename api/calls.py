"""Every call of the API that the clients make, as data: the request, and the type of its answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from api import result_schemas, schemas, service_schemas
from api.transport import ApiFailure, Call, body_of
from api.upload_formats import MEDIA_TYPES
from store.uploads import Format

T = TypeVar("T", bound=BaseModel)
Verb = Literal["cancel", "pause", "resume", "retry"]
Object = schemas.JobRead | schemas.ExperimentRead | schemas.RunRead

_KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "job": ("/v1/jobs", schemas.JobRead),
    "exp": ("/v1/experiments", schemas.ExperimentRead),
    "run": ("/v1/runs", schemas.RunRead),
    "ckpt": ("/v1/checkpoints", schemas.CheckpointRead),
    "res": ("/v1/results", result_schemas.ResultRead),
    "ds": ("/v1/datasets", service_schemas.DatasetRead),
    "wrk": ("/v1/workers", service_schemas.WorkerRead),
}
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "quarantined"})
_ID = re.compile(r"(?P<prefix>[a-z]+)_[0-9a-z]{26}")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """A request and what its answer is."""

    call: Call
    answer: type[T]


@dataclass(frozen=True, slots=True)
class AskList(Generic[T]):
    """A list, page by page."""

    path: str
    item: type[T]
    query: dict[str, Any]
    cursor: str = ""
    """Where the list begins; empty for its start."""

    def page(self, after: str) -> Ask[schemas.Page[T]]:
        """The page after a cursor."""
        query = {**self.query, "after": after or None}
        return Ask(Call("GET", self.path, query), schemas.Page[self.item])  # type: ignore[name-defined]


def address(identifier: str) -> tuple[str, type[BaseModel]]:
    """Path and type of the object with an id.

    Raises:
        ApiFailure: this is no id.
    """
    match = _ID.fullmatch(identifier)
    if match is None or match["prefix"] not in _KINDS:
        raise ApiFailure(0, "no-id", f"{identifier[:64]!r} is no id: it looks like job_..., exp_... or run_...")
    path, answer = _KINDS[match["prefix"]]
    return f"{path}/{identifier}", answer


def get(identifier: str, expected: type[T]) -> Ask[T]:
    """One object.

    Raises:
        ApiFailure: the id is of another kind of object.
    """
    path, answer = address(identifier)
    if not issubclass(answer, expected):
        raise ApiFailure(0, "no-id", f"{identifier} is the id of another kind of object")
    return Ask(Call("GET", path), answer)


def verb(identifier: str, name: Verb) -> Ask[Any]:
    """cancel, pause, resume or retry of a job, an experiment or a run."""
    path, answer = address(identifier)
    return Ask(Call("POST", f"{path}/{name}"), answer)


def submit(spec: Any) -> Ask[schemas.JobRead]:
    """A new job."""
    return Ask(Call("POST", "/v1/jobs", content=body_of(spec)), schemas.JobRead)


def submit_experiment(spec: Any) -> Ask[schemas.ExperimentRead]:
    """A new experiment."""
    return Ask(Call("POST", "/v1/experiments", content=body_of(spec)), schemas.ExperimentRead)


def experiment_document(identifier: str) -> Call:
    """The document of an experiment."""
    return Call("GET", f"/v1/experiments/{identifier}/document")


def clone_experiment(identifier: str, patch: dict[str, Any]) -> Ask[schemas.ExperimentRead]:
    """A changed copy of an experiment."""
    path = f"/v1/experiments/{identifier}/clone"
    return Ask(Call("POST", path, content=body_of(patch)), schemas.ExperimentRead)


def diff_experiments(before: str, after: str) -> AskList[service_schemas.DiffRead]:
    """What differs between two experiments."""
    return AskList(f"/v1/experiments/{after}/diff", service_schemas.DiffRead, {"against": before})


def score(request: Any) -> Ask[schemas.JobRead]:
    """A new score job."""
    return Ask(Call("POST", "/v1/scores", content=body_of(request)), schemas.JobRead)


def put_alias(name: str, checkpoint: str) -> Ask[service_schemas.AliasRead]:
    """A name for a checkpoint."""
    content = body_of({"checkpoint": checkpoint})
    return Ask(Call("PUT", f"/v1/aliases/{name}", content=content), service_schemas.AliasRead)


def delete_alias(name: str) -> Call:
    """The end of a name."""
    return Call("DELETE", f"/v1/aliases/{name}")


def pin(identifier: str, verb: Literal["pin", "unpin"]) -> Ask[schemas.CheckpointRead]:
    """The mark of a checkpoint to keep, or its end."""
    return Ask(Call("POST", f"/v1/checkpoints/{identifier}/{verb}"), schemas.CheckpointRead)


def upload_dataset(
    name: str, content: bytes, form: Format, text_fields: Sequence[str]
) -> Ask[service_schemas.DatasetRead]:
    """A new version of a data set."""
    query = {"name": name, "text_fields": ",".join(text_fields) or None}
    call = Call("POST", "/v1/datasets", query, content=content, media_type=MEDIA_TYPES[form])
    return Ask(call, service_schemas.DatasetRead)


def named_dataset(reference: str) -> Ask[schemas.Page[service_schemas.DatasetRead]]:
    """A page with the data set that `NAME` or `NAME@VERSION` means."""
    name, _, version = reference.removeprefix("dataset:").partition("@")
    query = {"name": name, "version": version or None, "limit": 1}
    return Ask(Call("GET", "/v1/datasets", query), schemas.Page[service_schemas.DatasetRead])


def only_dataset(found: schemas.Page[service_schemas.DatasetRead], reference: str) -> service_schemas.DatasetRead:
    """The data set of a page.

    Raises:
        ApiFailure: there is none.
    """
    if not found.data:
        raise ApiFailure(404, "not_found", f"there is no data set {reference[:80]!r}")
    return found.data[0]


def dataset_rows(identifier: str, after: int) -> AskList[service_schemas.DatasetRow]:
    """Rows of a data set."""
    path = f"/v1/datasets/{identifier}/rows"
    return AskList(path, service_schemas.DatasetRow, {"limit": 100}, str(after) if after else "")


def output(run: str, name: str) -> Call:
    """The download of a published file."""
    return Call("GET", f"/v1/runs/{run}/outputs/{name}")


def scored(job: str) -> Ask[service_schemas.ScoreRead]:
    """A score job with its figures."""
    return Ask(Call("GET", f"/v1/scores/{job}"), service_schemas.ScoreRead)


def metrics(run: str, keys: list[str] | None, from_step: int, max_points: int) -> Ask[schemas.MetricsRead]:
    """Metrics of a run."""
    query = {"keys": ",".join(keys) if keys else None, "from_step": from_step, "max_points": max_points}
    return Ask(Call("GET", f"/v1/runs/{run}/metrics", query), schemas.MetricsRead)


def curves(experiment: str, keys: list[str] | None, kind: str | None, max_points: int) -> Ask[schemas.CurvesRead]:
    """Metrics of an experiment's jobs over their seeds."""
    query = {"keys": ",".join(keys) if keys else None, "kind": kind, "max_points": max_points}
    return Ask(Call("GET", f"/v1/experiments/{experiment}/curves", query), schemas.CurvesRead)


def results_table(experiment: str | None, job: str | None) -> Ask[result_schemas.ResultsTable]:
    """The table of results."""
    return Ask(Call("GET", "/v1/results/table", {"experiment": experiment, "job": job}), result_schemas.ResultsTable)


def printed_table(experiment: str, form: str, metric: str | None, baseline: str | None) -> Call:
    """The table of results as text."""
    query = {"experiment": experiment, "format": form, "metric": metric, "baseline": baseline}
    return Call("GET", "/v1/results/table", query)


def comparisons(experiment: str, baseline: str, filters: dict[str, Any]) -> AskList[service_schemas.ComparisonRead]:
    """Every other method against a baseline."""
    query = {"experiment": experiment, "baseline": baseline, **filters}
    return AskList("/v1/comparisons", service_schemas.ComparisonRead, query)


def login_link() -> Ask[service_schemas.LoginLink]:
    """A link that opens one browser session."""
    return Ask(Call("POST", "/v1/login_links"), service_schemas.LoginLink)


def create_key(name: str, scope: str, expires_in_days: int | None) -> Ask[service_schemas.ApiKeyCreated]:
    """A new API key."""
    body = {"name": name, "scope": scope, "expires_in_days": expires_in_days}
    return Ask(Call("POST", "/v1/api_keys", content=body_of(body)), service_schemas.ApiKeyCreated)


def revoke_key(identifier: str) -> Ask[service_schemas.ApiKeyRead]:
    """The end of an API key."""
    return Ask(Call("POST", f"/v1/api_keys/{identifier}/revoke"), service_schemas.ApiKeyRead)


def listing(path: str, item: type[T], filters: dict[str, Any], limit: int = 100) -> AskList[T]:
    """Objects of one kind; filters that are None are left out."""
    return AskList(path, item, {"limit": limit, **{k: v for k, v in filters.items() if v is not None}})


def whole(path: str, item: type[T]) -> AskList[T]:
    """A short list that comes on one page, and takes no parameter."""
    return AskList(path, item, {})


def completions(run: str, filters: dict[str, Any]) -> AskList[result_schemas.CompletionRead]:
    """Completions of an evaluation run, a thousand a page."""
    return listing(f"/v1/runs/{run}/completions", result_schemas.CompletionRead, filters, limit=1000)


def side_by_side(run: str, other: str, change: str | None) -> AskList[result_schemas.CompletionPair]:
    """Completions of two evaluation runs."""
    path = f"/v1/runs/{run}/completions/against/{other}"
    return listing(path, result_schemas.CompletionPair, {"change": change}, limit=500)


def events(identifier: str, after: int) -> AskList[schemas.EventRead]:
    """Events of a job or a run, oldest first."""
    found = listing(f"{address(identifier)[0]}/events", schemas.EventRead, {"order": "asc"})
    return AskList(found.path, found.item, found.query, str(after) if after else "")


def logs(run: str, after: str) -> AskList[schemas.LogChunkRead]:
    """Pieces of a run's output, oldest first."""
    return AskList(f"/v1/runs/{run}/logs", schemas.LogChunkRead, {"limit": 100}, after)


def is_final(found: Any) -> bool:
    """Whether a job, an experiment or a run has come to its end."""
    return getattr(found, "status", None) in FINAL_STATES or getattr(found, "state", None) in FINAL_STATES


def is_outage(error: ApiFailure) -> bool:
    """Whether a failure may pass by itself: no connection, or a server that is starting, stopping or overloaded."""
    return error.code == "unreachable" or error.status in (429, 502, 503, 504)
