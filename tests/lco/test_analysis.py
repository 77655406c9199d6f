"""The analyses as commands: files, numbers, and the phenomena that the paper's figures show."""

import inspect
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch

from api.cli import ANALYSES
from lco.analysis import convexity, dynamics, theory
from lco.analysis.toy import hessians, objectives, slope, step_batch
from tests.lco.cases import V, randn


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Every analysis run once, small."""
    root = tmp_path_factory.mktemp("analysis")
    assert theory.main([str(root / "theory")]) == 0
    assert convexity.main([str(root / "convexity"), "--steps", "12", "--tokens", "24"]) == 0
    small = ["--steps", "30", "--warmup-steps", "40", "--completions", "6", "--max-tokens", "10"]
    assert dynamics.main([str(root / "dynamics"), *small]) == 0
    return root


def numbers_of(written, name):
    return json.loads((written / name / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("theory", ["theory"]),
        ("convexity", ["convexity"]),
        ("dynamics", ["dynamics-negative", "dynamics-positive", "dynamics-sft"]),
    ],
)
def test_an_analysis_writes_its_numbers_and_figures(written, name, figures):
    directory = written / name
    expected = {f"{name}.json", *(f"{figure}{suffix}" for figure in figures for suffix in (".png", ".svg"))}
    assert {path.name for path in directory.iterdir()} == expected
    for figure in figures:
        assert (directory / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (directory / f"{figure}.svg").read_text()


def test_the_same_seed_gives_the_same_numbers(written, tmp_path):
    theory.main([str(tmp_path)])
    for name in ("theory.json", "theory.svg"):
        assert (tmp_path / name).read_bytes() == (written / "theory" / name).read_bytes()


def test_figure_4_ppos_gradient_rises_until_its_clip(written):
    run = numbers_of(written, "dynamics")["toy"]["negative"]["ppo"]
    norms = run["gradient_norm"]
    stop = norms.index(0.0)
    assert stop > 3 and all(later > earlier for earlier, later in itertools.pairwise(norms[:stop]))
    assert run["probability"][stop] < 0.8 * dynamics.STARTS[-1] <= run["probability"][stop - 1]


@pytest.mark.parametrize("word", ["negative", "positive"])
def test_figures_4_and_8_without_a_clip_the_gradient_rises_and_falls(word):
    sign = -1 if word == "negative" else 1
    run = dynamics.toy_run("ppo-unclipped", sign, 300)
    peak = max(range(301), key=run["gradient_norm"].__getitem__)
    assert 3 < peak < 200
    assert run["probability"][peak] == pytest.approx(0.5, abs=0.1)
    assert run["gradient_norm"][peak] > 2 * max(run["gradient_norm"][0], run["gradient_norm"][-1])


@pytest.mark.parametrize("word", ["negative", "positive"])
def test_figures_5_and_9_lco_kld_decays_without_a_rise(written, word):
    run = numbers_of(written, "dynamics")["toy"][word]["lco-kld"]
    norms = run["gradient_norm"]
    assert all(later <= earlier for earlier, later in itertools.pairwise(norms))
    assert norms[-1] < (0.1 if word == "negative" else 0.8) * norms[0]


@pytest.mark.parametrize("sign", [-1, 1])
def test_figures_5_and_9_the_gradient_of_a_logit_is_the_distance_of_its_probabilities(sign):
    curve = dynamics.by_probability("lco-kld", sign)
    start = dynamics.STARTS[sign]
    target = start * math.exp(sign / dynamics.BETA) / (1 + start * math.expm1(sign / dynamics.BETA))
    expected = [abs(probability - target) for probability in curve["probability"]]
    assert curve["gradient"] == pytest.approx(expected, abs=1e-12)


def test_figure_3_the_gradient_of_sft_is_what_the_token_lacks():
    curve = dynamics.by_probability("sft", 1)
    assert curve["gradient"] == pytest.approx([1 - probability for probability in curve["probability"]], abs=1e-12)
    others = [other / (1 - p) for other, p in zip(curve["other_gradient"], curve["probability"], strict=True)]
    assert others == pytest.approx([others[0]] * len(others)), "a fixed share of the mass that is left"


def test_figure_4_ppos_gradient_has_its_closed_form():
    curve = dynamics.by_probability("ppo-unclipped", -1)
    start = dynamics.STARTS[-1]
    assert curve["gradient"] == pytest.approx([p * (1 - p) / start for p in curve["probability"]], abs=1e-12)


def test_a_models_weights_are_as_they_were_between_its_curves(written):
    model = numbers_of(written, "dynamics")["model"]
    first = {run["probability"][0] for runs in model.values() for run in runs.values()}
    assert len(first) == 1
    assert model["positive"]["sft"]["probability"][-1] > first.pop()
    assert model["negative"]["ppo-unclipped"]["probability"][-1] < model["negative"]["lco-kld"]["probability"][-1]


def test_convexity_tells_the_losses_apart(written):
    runs = numbers_of(written, "convexity")["toy"]
    assert set(runs) == set(convexity.CASES)
    smallest = {title: min(row["smallest"] for row in rows) for title, rows in runs.items()}
    for title in ("SFT", "REINFORCE, A > 0", "LCO-KLD", "LCO-LCH", "LCO-MSE"):
        assert smallest[title] > -1e-9, title
        assert all(row["share_negative"] == 0 for row in runs[title])
    assert smallest["LCO-MSE"] == pytest.approx(2)
    assert all(row["share_negative"] == 1 for row in runs["PPO, A < 0"])
    for title in ("PPO, A > 0", "REINFORCE, A < 0"):
        assert smallest[title] < -0.1 and runs[title][0]["share_negative"] > 0, title


def test_convexity_along_a_models_path(tiny_model, tmp_path, capsys):
    arguments = [
        "--policy",
        str(tiny_model),
        "--steps",
        "2",
        "--completions",
        "3",
        "--max-tokens",
        "4",
        "--tokens",
        "4",
    ]
    assert convexity.main([str(tmp_path), *arguments]) == 0
    runs = json.loads((tmp_path / "convexity.json").read_text())["model"]
    assert all(len(rows) == 3 for rows in runs.values())
    assert len({rows[0]["probability"] for rows in runs.values()}) == 1
    assert min(row["smallest"] for row in runs["LCO-KLD"]) > -1e-9
    assert max(row["smallest"] for row in runs["PPO, A < 0"]) < 0
    assert "tokens not convex" in capsys.readouterr().out
    assert (tmp_path / "convexity-model.png").exists()


def test_convexity_refuses_what_it_cannot_do(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(convexity, "MAX_VOCAB_SIZE", 8)
    assert convexity.main([str(tmp_path), "--policy", str(tiny_model)]) == 2
    assert "is too large, at most 8" in capsys.readouterr().err
    assert convexity.main([str(tmp_path), "--policy", str(tmp_path / "nothing")]) == 2
    assert "no model here" in capsys.readouterr().err


def test_hessians_of_a_batch_are_those_of_its_tokens(generator):
    old, advantages = randn(generator, 4, V), randn(generator, 4, V)
    actions, now = torch.tensor([0, 3, 1, 6]), randn(generator, 4, V)
    for name in ("sft", "ppo-unclipped", "lco-kld", "lco-lch"):
        whole = hessians(objectives(step_batch(old, advantages, actions), 0.7)[name], now)
        for i in range(4):
            one = objectives(step_batch(old[i : i + 1], advantages[i : i + 1], actions[i : i + 1]), 0.7)[name]
            expected = torch.autograd.functional.hessian(lambda z, one=one: one(z[None]).sum(), now[i])
            torch.testing.assert_close(whole[i], expected)


def test_a_loss_without_curvature_has_a_hessian_of_0(generator):
    now = randn(generator, 3, V)
    assert torch.equal(hessians(lambda z: z.sum(-1), now), torch.zeros(3, V, V, dtype=torch.float64))
    torch.testing.assert_close(slope(lambda z: z.sum(-1), now), torch.ones(3, V, dtype=torch.float64))


def test_the_page_names_every_analysis_and_every_option():
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
    assert re.findall(r"^    lco analyze (\w+) OUT_DIR", page, re.M) == list(ANALYSES)
    for name in ANALYSES:
        assert f"## {name}" in page
    for option in re.findall(r'add_argument\("(--[a-z-]+)"', inspect.getsource(dynamics.main)):
        assert f"`{option}" in page, option
