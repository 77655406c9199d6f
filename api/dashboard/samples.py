"""Pages to try checkpoints on: the form that asks, and completions side by side while they come."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import views
from api.auth import requires
from api.dashboard.lists import PER_PAGE
from api.dashboard.pages import REFRESH_SECONDS, page
from api.dashboard.tokens import Token, by_probability
from api.dependencies import DatabaseDep, SettingsDep
from api.ids import parse_id
from api.routes.samples import read
from api.sample_schemas import SampledRow
from store.ids import encode_id
from store.repositories.aliases import Aliases
from store.repositories.jobs import Jobs
from store.repositories.models import Models
from store.repositories.records import Checkpoints
from store.repositories.runs import Runs
from store.settings import Settings
from store.states import TERMINAL

router = APIRouter(include_in_schema=False)

_CHOICES = 100
_LONGEST_PROMPT = 4000


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy that may be asked."""

    source: str
    label: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A completion, with its tokens as they are drawn; None while it is not there."""

    told: SampledRow | None
    tokens: list[Token]
    mean: float | None
    """Mean log-probability of its tokens."""


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt in one decoding with one seed, by every policy."""

    decoding: str
    eval_seed: int | None
    cells: list[Cell]


@router.get("/sample")
@requires("read")
def form(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    policy: Annotated[str, Query(max_length=128)] = "",
    again: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The form, filled with a policy or with what an earlier sampling asked, and the newest samplings."""
    with database.read() as session:
        before = read(session, settings, parse_id("job", again), with_rows=False) if again else None
        choices = _choices(session, settings)
        rows = Jobs(session).page(PER_PAGE, kind="sample").rows
        recent = [read(session, settings, row.id, with_rows=False) for row in rows]
    sources = [one.source for one in before.policies] if before else [policy] if policy else []
    return page(
        request,
        "sample.html",
        choices=choices,
        sources=(sources + [""] * 4)[:4],
        prompts="\n\n---\n\n".join(before.prompts)[: 20 * _LONGEST_PROMPT] if before else "",
        before=before,
        recent=recent,
        twin="/v1/samples",
    )


def _choices(session: Session, settings: Settings) -> list[Choice]:
    """Aliases, the newest models that runs published, and those that came from elsewhere."""
    found = [Choice(f"alias:{row.name}", "an alias") for row in Aliases(session).page(_CHOICES).rows]
    for row in Checkpoints(session).page(_CHOICES, kind="model").rows:
        if row.run_id is not None:  # a registered model is named as `model:NAME`
            run = views.run(session, row.run_id)
            found.append(Choice(encode_id("ckpt", row.id), f"{run.job_name}, seed {run.seed}"))
    names = {row.name for row in Models(session).page(_CHOICES).rows}
    names |= {path.parent.name for path in settings.models.glob("*/config.json")}
    return found + [Choice(f"model:{name}", "a model") for name in sorted(names)[:_CHOICES]]


@router.get("/sample/{sample_id}")
@requires("read")
def sampled(request: Request, database: DatabaseDep, settings: SettingsDep, sample_id: str) -> Response:
    """Completions side by side, those that are there."""
    with database.read() as session:
        found = read(session, settings, parse_id("job", sample_id))
        run = Runs(session).get(parse_id("run", found.run_id))
        is_over, state = run.state in TERMINAL, str(run.state)
    by_place = {(row.prompt, row.decoding, row.eval_seed, row.policy): row for row in found.rows}
    blocks = []
    for number, prompt in enumerate(found.prompts):
        lines = []
        for decoding in found.decodings:
            for seed in [None] if decoding == "greedy" else found.eval_seeds:
                places = [(number, decoding, seed, policy) for policy in range(len(found.policies))]
                lines.append(Line(decoding, seed, [_cell(by_place.get(place)) for place in places]))
        blocks.append((prompt, lines))
    return page(
        request,
        "sampled.html",
        sample=found,
        state=state,
        blocks=blocks,
        twin=f"/v1/samples/{found.id}",
        every=0 if is_over else REFRESH_SECONDS,
    )


def _cell(row: SampledRow | None) -> Cell:
    if row is None:
        return Cell(None, [], None)
    known = [value for value in row.logprobs if value is not None]
    mean = sum(known) / len(known) if known else None
    return Cell(row, by_probability(row.pieces, row.logprobs), mean)
