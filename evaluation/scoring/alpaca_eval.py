"""AlpacaEval 2.0 figures of annotations that exist: win rate, its error, and the length-controlled win rate.

Rates are percent, under alpaca_eval's names. The length-controlled rate joins each annotation to the difficulty of its
own instruction; `compat="row-order"` joins by row number as alpaca_eval does, where one missing row shifts all later
ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from evaluation import annotations
from evaluation.annotations import NUM_INSTRUCTIONS, Annotation
from evaluation.preferences import TIE, is_extreme, win_rate

if TYPE_CHECKING:
    from evaluation.judge import Judge

Compat = Literal["row-order"]
Rows = Sequence[Mapping[str, Any]]

MIN_ROWS = 100
"""Fewer annotations fit no model: the length-controlled win rate is null."""
FEW_ROWS = 400
"""Fewer annotations fit one that moves by points: a warning says so."""
LEVEL = 0.95


def score_annotations(
    rows: Rows,
    *,
    instructions: Rows | None = None,
    difficulty: Rows | None = None,
    gamed_baseline: Rows | None = None,
    compat: Compat | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Figures of the annotations of one model.

    Args:
        rows: of `annotations.json`.
        instructions: the canonical instructions, with `index` or in order.
        difficulty: `{index, instruction_difficulty}`.
        gamed_baseline: of `df_gamed.csv`.
        compat: `row-order` takes the row number for the index.
        num_resamples: of the bootstrap interval; 0 for none.
        seed: of the bootstrap.

    Returns:
        One row per annotation, and the summary; see `docs/evaluation.md` for the fields.

    Raises:
        ValueError: a row or a file is not what it should be.
    """
    if compat not in (None, "row-order"):
        raise ValueError(f"compat: {compat!r} is not `row-order`")
    found = [annotations.annotation_of(number, row) for number, row in enumerate(rows)]
    model, baseline = (annotations.only_model(rows, field) for field in ("generator_2", "generator_1"))
    preferences = [one.preference for one in found if one.preference is not None]
    indices = None if instructions is None else annotations.instruction_indices(instructions)
    known = {} if difficulty is None else annotations.difficulties(difficulty)
    summary: dict[str, Any] = asdict(win_rate(preferences))
    annotated = {one.instruction for one in found if one.preference is not None}
    expected = NUM_INSTRUCTIONS if indices is None else len(indices)
    answered = len(preferences) if indices is None else len(annotated & indices.keys())
    warnings = []
    summary["n_missing"] = max(0, expected - answered)
    if summary["n_missing"]:
        warnings.append(f"{summary['n_missing']} of {expected} instructions have no preference")
    if len(annotated) < len(preferences):
        warnings.append(f"{len(preferences) - len(annotated)} annotations repeat an instruction, or name none")
    places = [_index(one, indices, compat) for one in found]
    control: dict[str, Any] = {
        "length_controlled_winrate": None,
        "lc_fit_spread": None,
        "lc_bootstrap": None,
        "lc_coefficients": None,
        "lc_c": None,
        "lc_n": 0,
        "n_unmatched": sum(
            place not in known for one, place in zip(found, places, strict=True) if one.preference is not None
        )
        if known
        else None,
        "join": compat or "instruction",
    }
    fitted: list[float | None] = [None] * len(found)
    reason = _missing_files(indices, difficulty, gamed_baseline, compat)
    if reason is None and model is not None and model == baseline:
        control |= {"length_controlled_winrate": 50.0, "lc_fit_spread": 0.0, "lc_n": len(preferences)}
    elif reason is None:
        assert gamed_baseline is not None
        rows_used = [
            position
            for position, (one, place) in enumerate(zip(found, places, strict=True))
            if place in known and one.delta_length is not None and (compat or one.preference is not None)
        ]
        if compat is None:  # the folds are made by position: the order of the file shall change nothing
            rows_used.sort(key=lambda position: places[position] or 0)
        used = [(found[position], known[places[position] or 0]) for position in rows_used]
        reason, fit, values = _controlled(used, gamed_baseline, num_resamples, seed)
        control |= fit
        for position, value in zip(rows_used, values, strict=True):
            fitted[position] = value
    if control["n_unmatched"]:
        warnings.append(f"{control['n_unmatched']} annotations have no known difficulty and are left out of the fit")
    if MIN_ROWS <= control["lc_n"] < FEW_ROWS and control["lc_c"] is not None:
        warnings.append(f"{control['lc_n']} annotations: below {FEW_ROWS} the length-controlled win rate is unstable")
    rate = control["length_controlled_winrate"]
    if rate is not None and summary["win_rate"] is not None and is_extreme(summary["win_rate"], rate):
        warnings.append(f"controlling for length changed {summary['win_rate']:.1f} to {rate:.1f}: look at the fit")
    summary |= control | {"reason": reason, "warnings": warnings, "model": model, "baseline": baseline}
    return [_row(one, place, known, value) for one, place, value in zip(found, places, fitted, strict=True)], summary


def judge_outputs(outputs: Rows, reference: Rows, judge: "Judge") -> list[dict[str, Any]]:
    """Annotations of the outputs of one model, in the order of the reference: what `score_annotations` takes.

    An instruction without an output has no annotation; where the judge fails, the annotation has no preference.

    Args:
        outputs: of the model's `model_outputs.json`.
        reference: of the baseline's.

    Raises:
        ValueError: a row has no text `instruction` or `output`, an instruction stands twice or is not the reference's.
        EndpointRejected, SpendingCapReached, CircuitOpen: see `evaluation.judge.Judge.compare`.
    """
    from evaluation.judge import Comparison

    theirs = annotations.outputs_by_instruction("reference", reference)
    ours = annotations.outputs_by_instruction("outputs", outputs)
    if unknown := ours.keys() - theirs.keys():
        raise ValueError(f"outputs: {len(unknown)} instructions are not the reference's, such as {min(unknown)[:60]!r}")
    shown = [instruction for instruction in theirs if instruction in ours]
    comparisons = [
        Comparison(instruction=instruction, reference=theirs[instruction]["output"], output=ours[instruction]["output"])
        for instruction in shown
    ]
    judge.check_estimate(comparisons)
    found = dict(judge.compare_all(comparisons))
    return [
        annotations.annotation_row(
            instruction,
            (comparisons[place].reference, comparisons[place].output),
            (theirs[instruction].get("generator", "reference"), ours[instruction].get("generator", "model")),
            judge.config.annotator,
            found[place].preference,
            dataset=theirs[instruction].get("dataset", ""),
            reason=found[place].reason,
            judge_top_logprobs=found[place].top_logprobs,
            price_per_example=found[place].price,
            time_per_example=found[place].seconds,
        )
        for place, instruction in enumerate(shown)
    ]


def _index(one: Annotation, indices: Mapping[str, int] | None, compat: Compat | None) -> int | None:
    """Index of the instruction that the difficulty is looked up with."""
    if compat == "row-order":
        return one.number
    return None if indices is None or one.instruction is None else indices.get(one.instruction)


def _missing_files(
    indices: Mapping[str, int] | None, difficulty: Rows | None, gamed: Rows | None, compat: Compat | None
) -> str | None:
    needed = {"instructions": indices if compat is None else {}, "difficulty": difficulty, "gamed-baseline": gamed}
    missing = [name for name, given in needed.items() if given is None]
    return f"the length-controlled win rate needs {', '.join(missing)}" if missing else None


def _controlled(
    used: Sequence[tuple[Annotation, float]], gamed_rows: Rows, num_resamples: int, seed: int
) -> tuple[str | None, dict[str, Any], list[float | None]]:
    """Why there is no length-controlled win rate, its fields of the summary, and the fitted preference of each row."""
    from evaluation import length_control  # numpy and scikit-learn: half a second that other scoring need not wait for

    num_preferences = sum(one.preference is not None for one, _ in used)
    none: list[float | None] = [None] * len(used)
    if num_preferences < MIN_ROWS:
        return f"{num_preferences} annotations with a known difficulty; the fit needs {MIN_ROWS}", {}, none
    gamed = length_control.GamedBaseline.of_rows(gamed_rows)
    pairs = [length_control.Pair(one.preference, one.delta_length or 0, value) for one, value in used]
    if len({pair.delta_length for pair in pairs}) == 1:
        return "all differences of length are equal, so that nothing tells length from quality", {}, none
    fit = length_control.length_controlled(pairs, gamed)
    interval = (
        length_control.bootstrap(pairs, gamed, fit, num_resamples=num_resamples, seed=seed, level=LEVEL)
        if num_resamples
        else None
    )
    coefficients = [float(value) for value in fit.coefficients]
    fields = {
        "length_controlled_winrate": fit.win_rate,
        "lc_fit_spread": fit.fit_spread,
        "lc_bootstrap": None if interval is None else asdict(interval),
        "lc_coefficients": dict(zip(length_control.COEFFICIENTS, coefficients, strict=True)),
        "lc_c": fit.c,
        "lc_n": num_preferences,
    }
    return None, fields, [length_control.predicted_one(fit.coefficients, value) for _, value in used]


def _row(one: Annotation, place: int | None, known: Mapping[int, float], fitted: float | None) -> dict[str, Any]:
    verdict = "missing"
    if one.preference is not None:
        verdict = "draw" if one.preference == TIE else "win" if one.preference > TIE else "loss"
    return {
        "row": one.number,
        "index": place,
        "instruction": one.instruction,
        "verdict": verdict,
        "preference": one.preference,
        "preference_from_logprobs": one.from_logprobs,
        "instruction_difficulty": None if place is None else known.get(place),
        "glm_preference": fitted,
    }
