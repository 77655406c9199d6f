"""The model card of an exported checkpoint: what it is, where it comes from, what was measured. Markdown from rows."""

import json
import re
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.ids import encode_id
from store.lineage import Edge, Lineage, Node, lineage_of
from store.models.job import Job
from store.models.record import Checkpoint, Result
from store.models.run import Run
from store.statistics import TableRow, results_table

_SHORT = 16


UnitOf = Callable[[str, str], str]
"""(benchmark, metric) -> what its values are: `fraction`, `percent` or `number`."""


def model_card(session: Session, checkpoint: Checkpoint, form: str, unit_of: UnitOf) -> str:
    """The card.

    Args:
        form: `merged` or `adapter`.
    """
    lineage = lineage_of(session, checkpoint)
    subject = lineage.nodes[lineage.subject]
    title = subject.name if subject.seed is None else f"{subject.method or subject.name}, seed {subject.seed}"
    parts = [_front(subject, lineage, form), f"# {_plain(title)}\n", _about(checkpoint, subject, form)]
    parts += [_origin(lineage), _configuration(session, subject), _results(session, checkpoint, subject, unit_of)]
    return "\n".join(part for part in parts if part)


def _front(subject: Node, lineage: Lineage, form: str) -> str:
    """The YAML that hubs read; the licence is for whoever publishes to say."""
    bases = [node.hub_id for node in lineage.nodes.values() if node.hub_id and _is_above(lineage, node.id)]
    lines = ["---", "license:  # yours to say: bases and data sets may bind you", "library_name: transformers"]
    lines += ["pipeline_tag: text-generation", "tags:", "- lco"]
    lines += [f"- {json.dumps(subject.kind)}"] if subject.kind else []
    lines += [f"base_model: {json.dumps(bases[0])}"] if bases else []
    lines += ["base_model_relation: adapter"] if bases and form == "adapter" else []
    return "\n".join([*lines, "---", ""])


def _about(checkpoint: Checkpoint, subject: Node, form: str) -> str:
    what = "a low-rank adapter" if form == "adapter" else "a causal language model"
    lines = [
        f"This is {what} as the LCO platform published it.",
        "",
        "| | |",
        "|---|---|",
        f"| checkpoint | `{encode_id('ckpt', checkpoint.id)}` |",
        f"| step | {checkpoint.step} |",
        f"| manifest | `sha256:{checkpoint.manifest_sha256}` |",
        f"| made | {checkpoint.created_at:%Y-%m-%d %H:%M} UTC |",
    ]
    if subject.run_id is not None:
        lines.append(f"| run | `{encode_id('run', subject.run_id)}`, attempt {checkpoint.attempt} |")
    if subject.job_id is not None:
        lines.append(f"| job | {_plain(subject.name)} (`{encode_id('job', subject.job_id)}`), kind {subject.kind} |")
    if subject.experiment_id is not None:
        lines.append(f"| experiment | `{encode_id('exp', subject.experiment_id)}` |")
    if subject.config_sha256:
        lines.append(f"| configuration | `sha256:{subject.config_sha256}` |")
    lines += [f"| {name} | {_plain(str(value))} |" for name, value in sorted(subject.software.items())]
    return "\n".join([*lines, ""])


def _origin(lineage: Lineage) -> str:
    """What it was made from, nearest last."""
    above = [name for name in lineage.nodes if name != lineage.subject and _is_above(lineage, name)]
    if not above:
        return ""
    lines = ["## Lineage\n", "| made from | as | what | hash |", "|---|---|---|---|"]
    for name in above:
        node = lineage.nodes[name]
        roles = sorted({_role(edge) for edge in lineage.edges if edge.source == name})
        lines.append(f"| {_plain(node.name)} | {', '.join(roles)} | {_what(node)} | {_hash(node)} |")
    return "\n".join([*lines, ""])


def _hash(node: Node) -> str:
    """The beginning of the hash of what it is, or of what it was told to do."""
    found = node.sha256 or node.content_sha256
    return f"`{found[:_SHORT]}`" if found else ""


def _what(node: Node) -> str:
    if node.hub_id:
        return f"`{node.hub_id}` at `{node.revision}`"
    if node.type == "run":
        seed = "" if node.seed is None else f", seed {node.seed}"
        shown = "" if node.checkpoint is None else f", `{encode_id('ckpt', node.checkpoint.id)}`"
        return f"{node.kind} run{seed}{shown}"
    return {"dataset": "data set", "model": "model", "data": "data file"}[node.type]


def _configuration(session: Session, subject: Node) -> str:
    job = None if subject.job_id is None else session.get(Job, subject.job_id)
    if job is None:
        return ""
    text = json.dumps(job.spec["config"], indent=1, ensure_ascii=False, sort_keys=True)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=2))
    return f"## Configuration\n\n{fence}json\n{text}\n{fence}\n"


def _results(session: Session, checkpoint: Checkpoint, subject: Node, unit_of: UnitOf) -> str:
    """What was measured on this checkpoint, and beside it the method's mean and spread over train seeds."""
    rows = list(session.scalars(select(Result).where(Result.checkpoint_id == checkpoint.id).order_by(Result.id)))
    if not rows:
        return ""
    sisters = _sisters(session, rows, subject)
    mine = results_table(rows)
    lines = [
        "## Results\n",
        "Mean over eval seeds of this checkpoint; beside it mean ± standard deviation (ddof = 1) over train seeds.\n",
        "| benchmark | metric | decoding | this checkpoint | over train seeds | examples |",
        "|---|---|---|---|---|---|",
    ]
    for row in mine:
        unit = unit_of(row.benchmark, row.metric)
        whole = sisters.get((row.benchmark, row.metric, row.decoding, row.configuration))
        lines.append(
            f"| {row.benchmark} | {row.metric} | {row.decoding} | {_figure(row.mean, unit)} | "
            f"{_spread(whole, unit)} | {row.num_examples} |"
        )
    return "\n".join([*lines, ""])


Key = tuple[str, str, str, str]


def _sisters(session: Session, rows: Sequence[Result], subject: Node) -> dict[Key, TableRow]:
    """The statistics over all train seeds of the evaluations that measured this checkpoint."""
    jobs = {row.job_id for row in rows}
    if subject.job_id is None:
        return {}
    siblings = select(Checkpoint.id).join(Run, Run.id == Checkpoint.run_id).where(Run.job_id == subject.job_id)
    query = select(Result).where(Result.job_id.in_(jobs), Result.checkpoint_id.in_(siblings)).order_by(Result.id)
    table = results_table(list(session.scalars(query)))
    return {(row.benchmark, row.metric, row.decoding, row.configuration): row for row in table}


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "not scored"
    return f"{100 * value:.1f} %" if unit == "fraction" else f"{value:.4g}{' %' if unit == 'percent' else ''}"


def _spread(row: TableRow | None, unit: str) -> str:
    if row is None or row.mean is None or row.std is None:
        return ""
    return f"{_figure(row.mean, unit)} ± {_figure(row.std, unit)} ({row.n} seeds)"


def _role(edge: Edge) -> str:
    return _plain(edge.role.rpartition(".")[2])


def _is_above(lineage: Lineage, name: str) -> bool:
    """Whether the subject was made from a node."""
    pending, seen = [lineage.subject], set()
    while pending:
        here = pending.pop()
        if here == name:
            return True
        if here not in seen:
            seen.add(here)
            pending += [edge.source for edge in lineage.edges if edge.target == here]
    return False


def _plain(text: str) -> str:
    """Text that no table cell of Markdown takes for more."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#|!" else c for c in text.replace("\n", " "))
