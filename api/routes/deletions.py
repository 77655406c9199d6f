"""Deletion of jobs, runs and experiments that have ended, with everything that they left."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from api.auth import requires
from api.bodies import no_body
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.failures import may_fail
from api.ids import parse_id
from store import deletion
from store.database import Database
from store.gc import Collector
from store.settings import Settings

router = APIRouter(prefix="/v1")


def files_removed(settings: Settings, database: Database) -> BackgroundTask:
    """Removes the files of what was deleted, after the answer; what it does not finish, the next collection does."""
    return BackgroundTask(Collector(settings, database).remove_files)


def _add(path: str, prefix: str, tag: str, act: Callable[[Session, UUID, str], Any], description: str) -> None:
    @may_fail("held", "invalid_state")
    @requires("write")
    def endpoint(
        identifier: Annotated[str, Path(alias=f"{prefix}_id")],
        database: DatabaseDep,
        settings: SettingsDep,
        principal: PrincipalDep,
    ) -> Response:
        subject = parse_id(prefix, identifier)
        with database.write() as session:
            act(session, subject, f"on request of the key {principal.name}")
        return Response(status_code=204, background=files_removed(settings, database))

    router.add_api_route(
        f"/{path}/{{{prefix}_id}}",
        endpoint,
        methods=["DELETE"],
        name=f"delete_{tag}",
        operation_id=f"{tag}.delete",
        description=description,
        tags=[tag],
        status_code=204,
        response_class=Response,
        dependencies=[Depends(no_body)],
    )


_REST = "Refused while it goes on, and while anything outside it was made from it: the answer names that."
_add("jobs", "job", "jobs", deletion.delete_job, f"Deletes an ended job with everything that it left. {_REST}")
_add("runs", "run", "runs", deletion.delete_run, f"Deletes an ended run with everything that it left. {_REST}")
_add(
    "experiments",
    "exp",
    "experiments",
    deletion.delete_experiment,
    f"Deletes an ended experiment with its jobs and everything that they left. {_REST}",
)
