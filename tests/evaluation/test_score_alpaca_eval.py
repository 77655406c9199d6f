"""Figures of annotations: the published ones, and joins, gaps, shuffles and files that are not there."""

import gzip
import hashlib
import json
import math
import random
from dataclasses import replace

import pytest

import evaluation.annotations as annotations_module
from evaluation.length_control import COEFFICIENTS
from evaluation.scoring.alpaca_eval import score_annotations
from tests.evaluation.alpaca_files import SHARED, made_annotations, made_files, published_example, published_files

EXAMPLES = ("claude-2", "vicuna-13b", "FuseChat-Llama-3.2-1B-Instruct")
needs_data = pytest.mark.skipif(not SHARED.exists(), reason=f"no AlpacaEval data at {SHARED}")


@pytest.fixture(scope="module")
def files():
    return made_files()


@pytest.fixture(scope="module")
def annotations(files):
    return made_annotations(files)


@pytest.fixture(scope="module")
def whole(files, annotations):
    return score_annotations(annotations, **files.keywords(), num_resamples=0)


@pytest.fixture(scope="module")
def published():
    return published_files()


def score(rows, files, **options):
    return score_annotations(rows, **files.keywords(), num_resamples=0, **options)[1]


@needs_data
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_figures_are_reproduced(published, name):
    rows, expected = published_example(name)
    per_row, summary = score_annotations(rows, **published.keywords(), num_resamples=0)
    for field in ("win_rate", "standard_error", "discrete_win_rate"):
        assert summary[field] == pytest.approx(expected[field], abs=1e-4)
    assert [summary[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_missing")] == [
        expected["n_wins"], expected["n_wins_base"], expected["n_draws"], 805, 0,
    ]  # fmt: skip
    assert summary["length_controlled_winrate"] == pytest.approx(expected["length_controlled_winrate"], abs=0.02)
    if expected["lc_standard_error"] is not None:
        assert summary["lc_fit_spread"] == pytest.approx(expected["lc_standard_error"], abs=0.001)
    assert summary["lc_coefficients"] == pytest.approx(expected["glm_weights"], abs=0.01)
    _, psi, theta = (expected["glm_weights"][name] for name in COEFFICIENTS)
    chances = [1 / (1 + math.exp(-psi * row["instruction_difficulty"] - theta)) for row in per_row]
    assert 100 * sum(chances) / 805 == pytest.approx(expected["length_controlled_winrate"], abs=1e-4)


@needs_data
@pytest.mark.parametrize("name", EXAMPLES[:2])
def test_every_stored_preference_follows_from_its_stored_log_probabilities(published, name):
    rows, _ = published_example(name)
    per_row, _ = score_annotations(rows)
    found = [row for row in per_row if row["preference_from_logprobs"] is not None]
    assert len(found) > 800
    assert all(row["preference"] == pytest.approx(row["preference_from_logprobs"], abs=1e-6) for row in found)
    stripped = [{key: row[key] for key in row if key != "preference"} for row in rows]
    again = [row["preference"] for row in score_annotations(stripped)[0]]
    assert sum(value is not None for value in again) == len(found)


@needs_data
def test_shuffling_changes_nothing_by_instruction_and_points_by_row_order(published):
    rows, expected = published_example("claude-2")
    whole = score(rows, published)["length_controlled_winrate"]
    random.Random(0).shuffle(rows)
    assert score(rows, published)["length_controlled_winrate"] == whole
    by_row = score(rows, published, compat="row-order")["length_controlled_winrate"]
    assert 34 < by_row < 36 and expected["length_controlled_winrate"] < 29


@needs_data
def test_few_rows_are_warned_of_and_stay_near(published):
    rows, _ = published_example("claude-2")
    for count, expected in ((100, 27.6), (200, 27.8), (400, 26.2)):
        summary = score(rows[:count], published)
        assert summary["length_controlled_winrate"] == pytest.approx(expected, abs=0.2)
        assert any("unstable" in warning for warning in summary["warnings"]) is (count < 400)
        assert summary["n_missing"] == 805 - count


def test_alpaca_evals_own_record_of_the_reply_is_read_too():
    top = [{"token": "m", "logprob": -0.1, "bytes": None}, {"token": "M", "logprob": -2.5, "bytes": None}]
    reply = {"text": "m", "finish_reason": "length", "logprobs": {"content": [{"token": "m", "top_logprobs": top}]}}
    row = {"instruction": "a", "judge_top_logprobs": {"m": -0.1, "M": -2.5}}
    raw = {"instruction": "a", "raw_completion": reply}
    assert score_annotations([raw])[0] == score_annotations([row])[0]
    assert score_annotations([raw])[0][0]["preference"] is not None
    for refused in (None, "", {}, {"logprobs": None}, {"logprobs": {"content": [{}]}}):
        assert score_annotations([raw | {"raw_completion": refused}])[0][0]["preference"] is None


def test_the_summary_is_json_and_names_its_model(whole):
    _, summary = whole
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["model"], summary["baseline"], summary["join"]) == ("model", "baseline", "instruction")
    assert summary["reason"] is None and summary["lc_n"] == summary["n_total"] == 240


def test_every_row_is_told_with_its_difficulty_and_fitted_preference(files, annotations, whole):
    per_row, summary = whole
    assert [row["index"] for row in per_row] == list(range(240))
    assert [row["instruction_difficulty"] for row in per_row] == [e["instruction_difficulty"] for e in files.difficulty]
    mean = sum(row["glm_preference"] for row in per_row) / 240
    assert 100 * mean == pytest.approx(summary["length_controlled_winrate"])
    verdicts = {"win": lambda p: p > 1.5, "loss": lambda p: p < 1.5}
    assert all(verdicts[row["verdict"]](row["preference"]) for row in per_row)


def test_the_order_of_the_rows_changes_nothing(files, annotations, whole):
    shuffled = list(annotations)
    random.Random(5).shuffle(shuffled)
    per_row, summary = score_annotations(shuffled, **files.keywords(), num_resamples=0)
    for name in ("length_controlled_winrate", "lc_fit_spread", "win_rate", "standard_error"):
        assert summary[name] == pytest.approx(whole[1][name], abs=1e-12)
    assert {row["index"]: row["glm_preference"] for row in per_row} == {
        row["index"]: row["glm_preference"] for row in whole[0]
    }


def test_missing_rows_stay_out_and_shift_nobody(files, annotations, whole):
    fewer = score(annotations[3:], files)
    assert fewer["length_controlled_winrate"] == pytest.approx(whole[1]["length_controlled_winrate"], abs=1)
    assert (fewer["n_missing"], fewer["n_total"]) == (3, 237)
    assert "3 of 240 instructions have no preference" in fewer["warnings"]
    shifted = score(annotations[3:], files, compat="row-order")
    assert abs(shifted["lc_coefficients"]["instruction_difficulty"]) < 0.5 * abs(
        fewer["lc_coefficients"]["instruction_difficulty"]
    )


def test_by_row_order_whole_sets_give_the_same(files, annotations, whole):
    assert (
        score(annotations, files, compat="row-order")["length_controlled_winrate"]
        == (whole[1]["length_controlled_winrate"])
    )


def test_null_preferences_are_as_missing_rows(files, annotations):
    nulls = [row | {"preference": value} for row, value in zip(annotations, [None, math.nan, None], strict=False)]
    by_null = score([*nulls, *annotations[3:]], files)
    by_gap = score(annotations[3:], files)
    assert by_null | {"warnings": 0} == by_gap | {"warnings": 0} and by_null["n_missing"] == 3


def test_a_stored_zero_is_a_tie(files, annotations):
    tied = [annotations[0] | {"preference": 0}, *annotations[1:]]
    same = [annotations[0] | {"preference": 1.5}, *annotations[1:]]
    assert score(tied, files) == score(same, files) and score(tied, files)["n_draws"] == 1


def test_an_unknown_instruction_counts_in_the_win_rate_and_not_in_the_fit(files, annotations):
    for change in ({"instruction": "never seen"}, {"instruction": None}):
        rows = [annotations[0] | change, *annotations[1:]]
        summary = score(rows, files)
        assert (summary["n_total"], summary["lc_n"], summary["n_unmatched"], summary["n_missing"]) == (240, 239, 1, 1)
    rows = [{key: row[key] for key in row if key != "instruction"} for row in annotations[:1]] + annotations[1:]
    assert score(rows, files)["lc_n"] == 239


def test_a_row_without_an_output_counts_in_the_win_rate_and_not_in_the_fit(files, annotations):
    rows = [{key: row[key] for key in row if key != "output_1"} for row in annotations[:1]] + annotations[1:]
    summary = score(rows, files)
    assert (summary["n_total"], summary["lc_n"]) == (240, 239)


@pytest.mark.parametrize("missing", ["instructions", "difficulty", "gamed_baseline"])
def test_without_a_file_there_is_no_controlled_rate_and_a_reason(files, annotations, missing):
    _, summary = score_annotations(annotations, **vars(replace(files, **{missing: None})))
    assert summary["length_controlled_winrate"] is None and summary["lc_fit_spread"] is None
    assert missing.replace("_", "-") in summary["reason"] and summary["win_rate"] is not None


def test_row_order_needs_no_instructions(files, annotations, whole):
    summary = score(annotations, replace(files, instructions=None), compat="row-order")
    assert summary["length_controlled_winrate"] == whole[1]["length_controlled_winrate"]


def test_too_few_rows_are_refused_with_a_reason(files, annotations):
    summary = score(annotations[:99], files)
    assert summary["length_controlled_winrate"] is None and "the fit needs 100" in summary["reason"]


def test_the_baseline_against_itself_is_50_by_definition(files, annotations):
    summary = score([row | {"generator_2": "baseline", "preference": 1.5} for row in annotations], files)
    assert (summary["length_controlled_winrate"], summary["lc_fit_spread"], summary["win_rate"]) == (50, 0, 50)


def test_an_extreme_change_is_warned_of(files):
    rows = made_annotations(files, theta=-1.2, length=500)
    assert any("look at the fit" in warning for warning in score(rows, files)["warnings"])


def test_the_interval_stands_beside_the_rate_under_its_own_name(files, annotations):
    _, summary = score_annotations(annotations, **files.keywords(), num_resamples=50, seed=3)
    interval = summary["lc_bootstrap"]
    assert interval["low"] < summary["length_controlled_winrate"] < interval["high"]
    assert (interval["num_resamples"], interval["seed"], interval["level"]) == (50, 3, 0.95)


def test_no_rows_are_no_figures():
    per_row, summary = score_annotations([])
    assert per_row == [] and summary["win_rate"] is None and (summary["n_total"], summary["n_missing"]) == (0, 805)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"preference": 3}, "row 1: preference is no number"),
        ({"preference": 0.5}, "row 1: preference"),
        ({"preference": True}, "row 1: preference"),
        ({"preference": "1.5"}, "row 1: preference"),
        ({"instruction": 3}, "row 1: instruction is no text"),
        ({"instruction": "a", "judge_top_logprobs": [1]}, "row 1: judge_top_logprobs"),
        ({"instruction": "a", "judge_top_logprobs": {"m": 800.0}}, "row 1: judge_top_logprobs"),
    ],
)
def test_a_row_of_another_form_is_refused_by_number(row, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_annotations([row])


def test_rows_of_two_models_are_refused(annotations):
    with pytest.raises(ValueError, match="generator_2: the rows name several models"):
        score_annotations([annotations[0], annotations[1] | {"generator_2": "other"}])


def test_another_compat_is_refused(annotations):
    with pytest.raises(ValueError, match="compat"):
        score_annotations(annotations, compat="rows")


@pytest.mark.parametrize(
    ("name", "rows", "complaint"),
    [
        ("instructions", [{"instruction": "a"}, {"instruction": "a"}], "repeats an instruction"),
        ("instructions", [{"instruction": "a", "index": 1}, {"instruction": "b", "index": 1}], "an index stands twice"),
        ("instructions", [{"index": 1}], "no text `instruction`"),
        ("difficulty", [{"index": 0}], "difficulty: row 1"),
        ("difficulty", [{"index": "x", "instruction_difficulty": "1"}], "difficulty: row 1"),
        ("difficulty", [{"index": "0", "instruction_difficulty": "nan"}], "difficulty: row 1"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(annotations, name, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_annotations(annotations, **{name: rows})


def test_the_published_gamed_rows_are_known_by_their_hash_packed_or_not(tmp_path, monkeypatch):
    content = b"index,preference\n"
    monkeypatch.setattr(annotations_module, "GAMED_BASELINE_SHA256", hashlib.sha256(content).hexdigest())
    (tmp_path / "a.csv").write_bytes(content)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.csv").write_bytes(content + b"0,1\n")
    found = {path.name: annotations_module.is_published_gamed_baseline(path) for path in tmp_path.iterdir()}
    assert found == {"a.csv": True, "a.csv.gz": True, "b.csv": False}
