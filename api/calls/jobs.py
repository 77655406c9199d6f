"""Calls about jobs, experiments and runs."""

from typing import Any, Literal

from api import price_schemas, schemas, service_schemas
from api.calls.base import Ask, AskList, address, listing
from api.transport import Call, body_of

Verb = Literal["cancel", "pause", "resume", "retry"]


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


def price_experiment(spec: Any, device: str) -> Ask[price_schemas.PriceRead]:
    """What an experiment costs."""
    call = Call("POST", "/v1/experiments/price", {"device": device}, content=body_of(spec))
    return Ask(call, price_schemas.PriceRead)


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


def output(run: str, name: str) -> Call:
    """The download of a published file."""
    return Call("GET", f"/v1/runs/{run}/outputs/{name}")


def events(identifier: str, after: int) -> AskList[schemas.EventRead]:
    """Events of a job or a run, oldest first."""
    found = listing(f"{address(identifier)[0]}/events", schemas.EventRead, {"order": "asc"})
    return AskList(found.path, found.item, found.query, str(after) if after else "")


def logs(run: str, after: str) -> AskList[schemas.LogChunkRead]:
    """Pieces of a run's output, oldest first."""
    return AskList(f"/v1/runs/{run}/logs", schemas.LogChunkRead, {"limit": 100}, after)


def event_stream(identifier: str) -> str:
    """Path of the stream of events of a job or a run."""
    return f"{address(identifier)[0]}/events/stream"


def log_stream(run: str) -> str:
    """Path of the stream of a run's output."""
    return f"/v1/runs/{run}/logs/stream"
