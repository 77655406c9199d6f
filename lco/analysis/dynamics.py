"""Gradients while one batch is repeated: figures 3, 4, 5, 8, 9 of the paper. `python -m lco.analysis.dynamics OUT_DIR`.

Toy logits first: one token of a tabular policy, analytic in float64. Then a model: the same completions again and
again, with every advantage negative (figures 4, 5) or positive (8, 9), and as demonstrations (figure 3). Without
`--policy` the model is a small Llama that is warmed up on sums here.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.analysis import report
from lco.analysis.toy import algorithms, descend, logits_with, objectives, slope, step_batch
from lco.config import LlamaInit, Optimizer, Prompts, Sampling, SftConfig, StageConfig, Sums
from lco.diagnostics import gradient_norm, mean_gradient_norm, projection_parameters
from lco.losses import LOSSES, sft
from lco.optimization import make_optimizer
from lco.policy import Policy, load_policy
from lco.prompts import load_prompts
from lco.rollout import Batch, Support, sample, sequence_tensors
from lco.seeds import derived_seed
from lco.sft import warm_up
from lco.stage import Stage

VOCAB_SIZE = 50
BETA = 1.0
STARTS = {-1: 0.9, 1: 0.1}
"""Probability of the sampled token before the first step, by the sign of its advantage."""
RATES = {-1: 1.0, 1: 0.1}
"""Step size of the toy: PPO's first gradients, A / pi_old, are that much larger for an unlikely token."""
_NAMES = ("ppo", "ppo-unclipped", "lco-kld")
_FIGURES = {-1: "figures 4 and 5", 1: "figures 8 and 9"}


def toy_run(name: str, sign: int, num_steps: int) -> dict[str, list[float]]:
    """Gradient descent on one token's logits, from `STARTS[sign]`; `sft` has the sampled token as demonstration.

    Returns:
        By step: `probability` of the sampled token, `gradient` of its logit, `other_gradient` of the likeliest other
        logit (absolute values), `gradient_norm` over the vocabulary.
    """
    old_NV = logits_with(STARTS[sign], VOCAB_SIZE)
    advantages_NV = torch.zeros_like(old_NV)
    advantages_NV[0, 0] = sign
    objective = objectives(step_batch(old_NV, advantages_NV, torch.zeros(1, dtype=torch.long)), BETA)[name]
    path = descend(objective, old_NV, RATES[sign], num_steps)
    slopes = [slope(objective, logits_NV)[0] for logits_NV in path]
    return {
        "probability": [float(logits_NV.softmax(-1)[0, 0]) for logits_NV in path],
        "gradient": [float(slope_V[0].abs()) for slope_V in slopes],
        "other_gradient": [float(slope_V[1].abs()) for slope_V in slopes],
        "gradient_norm": [float(slope_V.norm()) for slope_V in slopes],
    }


def by_probability(name: str, sign: int, num_points: int = 197) -> dict[str, list[float]]:
    """The gradients of the sampled and of the likeliest other logit for every probability of the sampled token.

    PPO's is |A| pi (1 - pi) / pi_old where its clip does not decide, largest at 1/2; LCO-KLD's |pi - pi*|; SFT's
    1 - pi.
    """
    grid = torch.linspace(0.01, 0.99, num_points, dtype=torch.float64).tolist()
    logits_NV = torch.cat([logits_with(probability, VOCAB_SIZE) for probability in grid])
    old_NV = logits_with(STARTS[sign], VOCAB_SIZE).expand_as(logits_NV)
    advantages_NV = torch.zeros_like(logits_NV)
    advantages_NV[:, 0] = sign
    batch = step_batch(old_NV, advantages_NV, torch.zeros(num_points, dtype=torch.long))
    slope_NV = slope(objectives(batch, BETA)[name], logits_NV).abs()
    return {"probability": grid, "gradient": slope_NV[:, 0].tolist(), "other_gradient": slope_NV[:, 1].tolist()}


def warmed_up(seed: int, num_steps: int) -> tuple[Policy, Prompts]:
    """A small Llama that has seen some sums, and the sums."""
    prompts = Sums(num_terms=4, num_problems=512)
    config = SftConfig(
        policy=LlamaInit(hidden_size=48, intermediate_size=96, num_layers=2),
        prompts=prompts,
        steps=num_steps,
        batch_size=32,
        optimizer=Optimizer(learning_rate=3e-3),
        device="cpu",
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(StringIO()):
        with closing(Stage(Path(directory), [])) as stage:
            warm_up(config, stage)
        return load_policy(Path(directory) / "model", config), prompts


def repeated_batch(policy: Policy, prompts: Prompts, seed: int, num_completions: int, max_tokens: int) -> Batch:
    """Completions of the policy with the behaviour logits of the whole vocabulary; advantages are still 0."""
    chosen = load_prompts(prompts, seed)[:num_completions]
    prompt_ids = [policy.encode_prompt(prompt.text) for prompt in chosen]
    seeds = [derived_seed(seed, "dynamics", position) for position in range(len(chosen))]
    completions = sample(policy, prompt_ids, seeds, Sampling(max_tokens=max_tokens))
    ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(prompt_ids, completions, policy.device)
    with torch.no_grad():
        old_NV = policy.token_logits(ids_BT, attention_mask_BT, mask_BT).double()
    batch = step_batch(old_NV, torch.zeros_like(old_NV), actions_N)
    batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT = ids_BT, attention_mask_BT, mask_BT
    batch.num_tokens_B = torch.tensor([len(completion) for completion in completions], device=policy.device)
    return batch


def with_advantage(batch: Batch, value: float) -> Batch:
    """The batch with one advantage at every sampled token, 0 at every other entry."""
    support = batch.support
    assert support is not None
    dense_NV = torch.zeros_like(support.advantages_NK).scatter(1, batch.actions_N[:, None], value)
    known = {name: getattr(support, name) for name in Support.__dataclass_fields__} | {"advantages_NK": dense_NV}
    values = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    return Batch(**values | {"advantages_N": torch.full_like(batch.advantages_N, value), "support": Support(**known)})


def model_run(policy: Policy, batch: Batch, name: str, num_steps: int, learning_rate: float) -> dict[str, list[float]]:
    """AdamW on one batch, its weights put back afterwards.

    Returns:
        By step, before the update: `gradient_norm` (mean over q/k/v, as the paper plots it), `global_norm`, mean
        `probability` of the sampled tokens.
    """
    kept = [parameter.detach().clone() for parameter in policy.model.parameters()]
    optimizer = make_optimizer(policy.model, Optimizer(learning_rate=learning_rate))
    projections = projection_parameters(policy.model)
    loss_of = _loss(name, batch)
    found: dict[str, list[float]] = {"gradient_norm": [], "global_norm": [], "probability": []}
    for _ in range(num_steps):
        optimizer.zero_grad(set_to_none=True)
        logits_NV = policy.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT)
        loss_of(logits_NV).mean().backward()
        probability = logits_NV.detach().softmax(-1).gather(1, batch.actions_N[:, None]).mean()
        numbers = [mean_gradient_norm(projections), gradient_norm(policy.model.parameters()), probability]
        for values, number in zip(found.values(), torch.stack(numbers).tolist(), strict=True):
            values.append(number)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for parameter, weight in zip(policy.model.parameters(), kept, strict=True):
            parameter.copy_(weight)
    return found


def _loss(name: str, batch: Batch) -> Callable[[Tensor], Tensor]:
    if name == "sft":
        return lambda logits_NV: sft(logits_NV, batch.actions_N)
    algorithm = algorithms(BETA)[name]
    return lambda logits_NV: LOSSES[type(algorithm)](logits_NV, batch, algorithm)


def analyse(options: Any) -> dict[str, Any]:
    """All curves: `toy`, `by_probability` and `model`, each by sign of the advantage and objective."""
    signs = {"negative": -1, "positive": 1}
    cases = {sign: [*_NAMES, *(["sft"] if sign > 0 else [])] for sign in signs.values()}
    if options.policy is None:
        policy, prompts = warmed_up(options.seed, options.warmup_steps)
    else:
        policy, prompts = load_policy(options.policy, StageConfig(seed=options.seed)), Sums(num_terms=4)
    batch = repeated_batch(policy, prompts, options.seed, options.completions, options.max_tokens)
    return {
        "settings": {
            "seed": options.seed,
            "steps": options.steps,
            "learning_rate": options.learning_rate,
            "policy": str(options.policy or "a small Llama warmed up on sums"),
            "num_tokens": len(batch.actions_N),
            "beta": BETA,
        },
        "toy": {word: {n: toy_run(n, sign, options.steps) for n in cases[sign]} for word, sign in signs.items()},
        "by_probability": {word: {n: by_probability(n, sign) for n in cases[sign]} for word, sign in signs.items()},
        "model": {
            word: {
                n: model_run(policy, with_advantage(batch, sign), n, options.steps, options.learning_rate)
                for n in cases[sign]
            }
            for word, sign in signs.items()
        },
    }


def figures(numbers: dict[str, Any]) -> dict[str, Any]:
    """One figure for each sign of the advantage, and one for SFT."""
    found = {}
    for word, sign in (("negative", -1), ("positive", 1)):
        title = f"Repeating one batch with A {'<' if sign < 0 else '>'} 0: PPO and LCO-KLD ({_FIGURES[sign]})"
        found[f"dynamics-{word}"] = _figure(numbers, word, _NAMES, title)
    found["dynamics-sft"] = _figure(
        numbers, "positive", ("sft",), "Repeating one batch of demonstrations: SFT (figure 3)"
    )
    return found


def _figure(numbers: dict[str, Any], word: str, names: tuple[str, ...], title: str) -> Any:
    drawn, axes = report.panels(2, 2, title)
    for name in names:
        toy, model = numbers["toy"][word][name], numbers["model"][word][name]
        curve = numbers["by_probability"][word][name]
        report.line(axes[0], name, range(len(toy["gradient_norm"])), toy["gradient_norm"])
        report.line(axes[1], name, range(len(model["gradient_norm"])), model["gradient_norm"])
        report.line(axes[2], name, curve["probability"], curve["gradient"])
        report.line(axes[3], name, curve["probability"], curve["other_gradient"])
    report.describe(axes[0], "Toy logits: gradient norm", "step", "‖∂L/∂z‖")
    report.describe(axes[1], "Model: gradient norm, mean of q/k/v", "step (AdamW)", "Frobenius norm", legend=False)
    report.describe(axes[2], "Sampled token's logit", "π(aₜ)", "|∂L/∂z(aₜ)|", legend=False)
    report.describe(axes[3], "Likeliest other logit", "π(aₜ)", "|∂L/∂z(a)|", legend=False)
    is_wide = word == "positive" and "ppo" in names  # without a clip the model's gradient explodes
    for panel in axes:
        if is_wide and panel is axes[1]:
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
    for panel in axes[2:]:
        start = numbers["toy"][word][names[0]]["probability"][0]
        panel.axvline(start, color="#999999", linewidth=0.9, linestyle=":")
        panel.set_xlim(0, 1)
    return drawn


def summary(numbers: dict[str, Any]) -> list[str]:
    """What the curves say, one line each."""
    lines = []
    for word, runs in numbers["model"].items():
        for name, run in runs.items():
            norms, probability = run["gradient_norm"], run["probability"]
            peak = max(range(len(norms)), key=norms.__getitem__)
            lines.append(
                f"A {'<' if word == 'negative' else '>'} 0, {report.TITLES[name]}: gradient norm {norms[0]:.3g} first, "
                f"{norms[peak]:.3g} largest (step {peak}), {norms[-1]:.3g} last; pi(a_t) {probability[0]:.3f} -> "
                f"{probability[-1]:.3f}"
            )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Writes numbers and figures, prints a summary."""
    parser = report.parser(__doc__.partition("\n")[0])
    parser.add_argument("--policy", type=Path, help="a model directory; its completions of sums are repeated")
    parser.add_argument("--steps", type=int, default=100, help="times that the batch is repeated (default 100)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of AdamW on the model (default 1e-4)")
    parser.add_argument("--completions", type=int, default=16, help="in the batch (default 16)")
    parser.add_argument("--max-tokens", type=int, default=24, help="longest completion (default 24)")
    parser.add_argument("--warmup-steps", type=int, default=120, help="of the small Llama (default 120)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    numbers = analyse(options)
    report.write(options.out_dir, "dynamics", numbers, figures(numbers))
    print("\n".join(summary(numbers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
