"""Pages that write: a new experiment, a changed copy of one, outputs to be graded."""

from fastapi import APIRouter, Request, Response

from api import views
from api.auth import requires
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import SLOW_REFRESH_SECONDS, page
from api.dashboard.words import pretty
from api.dependencies import DatabaseDep, SettingsDep
from api.ids import parse_id
from api.pagination import cursor
from api.routes.scores import score_view
from store.repositories.jobs import Experiments, Jobs

router = APIRouter(include_in_schema=False)

EXAMPLE = """\
name = "first"
seeds = [0, 1]                      # train seeds: one run each

[[jobs]]
kind = "sft"
name = "sft"
[jobs.config]
policy = { name = "llama", hidden_size = 32, num_layers = 1 }
prompts = { name = "sums", num_terms = 2, num_problems = 200 }
steps = 40

[[jobs]]
kind = "evaluation"
name = "eval-sft"
[jobs.config]
policy = "job:sft"
benchmarks = [{ name = "sums", problems = { num_terms = 2, num_problems = 100 }, max_tokens = 16 }]
decodings = ["greedy"]
"""
"""What the form begins with: it is valid, and runs in seconds."""


@router.get("/experiments/new")
@requires("write")
def new_experiment(request: Request) -> Response:
    """A document to paste, check and submit."""
    return page(request, "form.html", original=None, text=EXAMPLE, twin="/v1/experiments")


@router.get("/experiments/{experiment_id}/clone")
@requires("write")
def clone(request: Request, database: DatabaseDep, experiment_id: str) -> Response:
    """The document of an experiment, to change and submit again."""
    with database.read() as session:
        row = Experiments(session).get(parse_id("exp", experiment_id))
        found = views.experiment(session, row.id)
    text = pretty(row.document)
    return page(request, "form.html", original=found, text=text, twin=f"/v1/experiments/{found.id}/document")


@router.get("/scores")
@requires("read")
def scores(
    request: Request, database: DatabaseDep, settings: SettingsDep, after: Cursor = None, before: Cursor = None
) -> Response:
    """Outputs that were graded, with their figures, newest first; and the form that has some graded."""
    with database.read() as session:
        rows = Jobs(session).page(
            PER_PAGE, cursor("job", after, "after"), cursor("job", before, "before"), kind="score"
        )
        data = [score_view(session, settings, row.id) for row in rows.rows]
    return page(
        request,
        "scores.html",
        scores=data,
        links=pager("/scores", {}, rows, [item.id for item in data], after, before),
        twin="/v1/scores",
        every=SLOW_REFRESH_SECONDS,
    )
