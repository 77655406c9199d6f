"""The smallest Hessian eigenvalue of each loss, along its own path. `python -m lco.analysis.convexity OUT_DIR`.

Each objective descends from the same random behaviour policies; at every step the Hessian of every token's loss in its
logits is taken by autograd. Below 0 the loss is not convex there (Lemmas 4.5, 4.6). Exactly: PPO with A > 0 is convex
where the sampled token has half the mass or more and nowhere else, with A < 0 nowhere. With `--policy` the tokens are
also those of a model that is trained on one batch, its vocabulary small enough for a Hessian.

Shapes: N tokens, V vocabulary.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lco.analysis import report
from lco.analysis.dynamics import repeated_batch, with_advantage
from lco.analysis.toy import Objective, descend, objectives, smallest_curvature, step_batch
from lco.config import Optimizer, StageConfig, Sums
from lco.optimization import make_optimizer
from lco.policy import Policy, load_policy
from lco.rollout import Batch

VOCAB_SIZE = 7
MAX_VOCAB_SIZE = 512
"""Of a model: every token's Hessian has V x V entries."""
BETA = 0.5
CASES: dict[str, tuple[str, int]] = {
    "SFT": ("sft", 1),
    "REINFORCE, A > 0": ("reinforce", 1),
    "REINFORCE, A < 0": ("reinforce", -1),
    "PPO, A > 0": ("ppo-unclipped", 1),
    "PPO, A < 0": ("ppo-unclipped", -1),
    "LCO-KLD": ("lco-kld", 0),
    "LCO-LCH": ("lco-lch", 0),
    "LCO-MSE": ("lco-mse", 0),
}
"""Title -> objective and sign of the sampled token's advantage; 0: random advantages over the vocabulary. PPO is shown
where its clip does not decide: clipped, its loss is constant and its Hessian 0."""
_LOOKS: dict[str, dict[str, Any]] = {
    "REINFORCE, A < 0": {"color": "#E69F00", "linestyle": "-"},
    "PPO, A > 0": {"color": "#D55E00", "linestyle": (0, (2, 1.5))},
    "PPO, A < 0": {"color": "#D55E00", "linestyle": "-"},
}
_ZERO = 1e-9  # below which an eigenvalue's sign is rounding


def start(generator: torch.Generator, num_tokens: int, sign: int) -> Batch:
    """Random behaviour policies with sampled tokens, and their advantages."""
    old_NV = 2 * torch.randn(num_tokens, VOCAB_SIZE, generator=generator, dtype=torch.float64)
    actions_N = torch.multinomial(old_NV.softmax(-1), 1, generator=generator)[:, 0]
    if sign:
        advantages_NV = torch.zeros_like(old_NV).scatter(1, actions_N[:, None], float(sign))
    else:
        advantages_NV = torch.randn(num_tokens, VOCAB_SIZE, generator=generator, dtype=torch.float64)
    return step_batch(old_NV, advantages_NV, actions_N)


def measured(objective: Objective, batch: Batch, logits_NV: Tensor) -> dict[str, float]:
    """Smallest and median over tokens of the smallest eigenvalue, and the share of tokens with one below 0."""
    # Beside the target by a hair: autograd knows no curvature of |x|, which log-cosh is made of, at exactly 0.
    curvature_N = smallest_curvature(objective, logits_NV + _ZERO)
    loss_N = objective(logits_NV)
    return {
        "smallest": float(curvature_N.min()),
        "median": float(curvature_N.median()),
        "share_negative": float((curvature_N < -_ZERO).double().mean()),
        "loss": float(loss_N.mean()),
        "probability": float(logits_NV.softmax(-1).gather(1, batch.actions_N[:, None]).mean()),
    }


def toy(seed: int, num_tokens: int, num_steps: int, rate: float) -> dict[str, list[dict[str, float]]]:
    """By case and step: what is measured along gradient descent in the logits."""
    found = {}
    for title, (name, sign) in CASES.items():
        batch = start(torch.Generator().manual_seed(seed), num_tokens, sign)
        objective = objectives(batch, BETA)[name]
        assert batch.support is not None
        path = descend(objective, batch.support.behaviour_logits_NK, rate, num_steps)
        found[title] = [measured(objective, batch, logits_NV) for logits_NV in path]
    return found


def model(
    policy: Policy, seed: int, num_steps: int, learning_rate: float, num_completions: int, max_tokens: int
) -> dict[str, list[dict[str, float]]]:
    """The same along AdamW steps of a model on one batch of its own completions; its weights are put back each time.

    Raises:
        ValueError: the vocabulary is too large for a Hessian of every token.
    """
    if policy.vocab_size > MAX_VOCAB_SIZE:
        raise ValueError(f"policy: a vocabulary of {policy.vocab_size} is too large, at most {MAX_VOCAB_SIZE}")
    sampled = repeated_batch(policy, Sums(num_terms=4), seed, num_completions, max_tokens)
    generator = torch.Generator().manual_seed(seed)
    kept = [parameter.detach().clone() for parameter in policy.model.parameters()]
    found = {}
    for title, (name, sign) in CASES.items():
        batch = with_advantage(sampled, float(sign))
        assert batch.support is not None
        if not sign:
            batch.support.advantages_NK = torch.randn(
                batch.support.advantages_NK.shape, generator=generator, dtype=torch.float64
            )
        objective = objectives(batch, BETA)[name]
        optimizer = make_optimizer(policy.model, Optimizer(learning_rate=learning_rate))
        rows = []
        for step in range(num_steps + 1):
            logits_NV = policy.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT)
            rows.append(measured(objective, batch, logits_NV.detach().double()))
            if step < num_steps:
                optimizer.zero_grad(set_to_none=True)
                objective(logits_NV).mean().backward()
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, weight in zip(policy.model.parameters(), kept, strict=True):
                parameter.copy_(weight)
        found[title] = rows
    return found


def figure(runs: dict[str, list[dict[str, float]]], where: str) -> Any:
    """Two panels: the smallest eigenvalue over all tokens, and the share of tokens at which the loss is not convex."""
    drawn, axes = report.panels(1, 2, f"Curvature of each loss in the logits along its own path ({where})")
    for title, rows in runs.items():
        look = _LOOKS.get(title, {})
        steps = range(len(rows))
        report.line(axes[0], CASES[title][0], steps, [row["smallest"] for row in rows], title, **look)
        report.line(axes[1], CASES[title][0], steps, [row["share_negative"] for row in rows], title, **look)
    axes[0].axhline(0.0, color="#555555", linewidth=0.9)
    axes[0].set_yscale("symlog", linthresh=1e-2, linscale=0.5)
    report.describe(axes[0], "Smallest eigenvalue of all tokens", "step", "eigenvalue of ∂²L/∂z²", legend=False)
    report.describe(axes[1], "Tokens at which the loss is not convex", "step", "share", legend=False)
    axes[1].set_ylim(-0.02, 1.02)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return drawn


def summary(runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """One line per loss."""
    lines = [f"{'':18} {'smallest eigenvalue':>20} {'tokens not convex':>18}"]
    for title, rows in runs.items():
        smallest, share = min(row["smallest"] for row in rows), sum(row["share_negative"] for row in rows) / len(rows)
        lines.append(f"{title:18} {0.0 if abs(smallest) < _ZERO else smallest:20.4g} {100 * share:17.1f}%")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Writes numbers and figures, prints a summary; 2 for a policy that it cannot take."""
    parser = report.parser(__doc__.partition("\n")[0])
    parser.add_argument("--policy", type=Path, help="a model directory with a small vocabulary, beside the toy")
    parser.add_argument("--steps", type=int, default=60, help="of each path (default 60)")
    parser.add_argument("--tokens", type=int, default=64, help="of the toy (default 64)")
    parser.add_argument("--rate", type=float, default=0.5, help="step size in the toy's logits (default 0.5)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of AdamW on the model (default 1e-4)")
    parser.add_argument("--completions", type=int, default=8, help="in the model's batch (default 8)")
    parser.add_argument("--max-tokens", type=int, default=16, help="longest completion of the model (default 16)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        numbers = analyse(options)
    except ValueError as error:
        print(f"lco analyze convexity: {error}", file=sys.stderr)
        return 2
    figures = {"convexity": figure(numbers["toy"], f"toy, V = {VOCAB_SIZE}")}
    if "model" in numbers:
        figures["convexity-model"] = figure(numbers["model"], "model")
    report.write(options.out_dir, "convexity", numbers, figures)
    print("\n".join(summary(numbers["model"] if "model" in numbers else numbers["toy"])))
    return 0


def analyse(options: argparse.Namespace) -> dict[str, Any]:
    """`toy`, and `model` where a policy is given.

    Raises:
        ValueError: the policy cannot be loaded, or its vocabulary is too large.
    """
    numbers: dict[str, Any] = {
        "settings": {
            name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items() if name != "out_dir"
        },
        "toy": toy(options.seed, options.tokens, options.steps, options.rate),
    }
    if options.policy is not None:
        policy = load_policy(options.policy, StageConfig(seed=options.seed))
        sizes = (options.completions, options.max_tokens)
        numbers["model"] = model(policy, options.seed, options.steps, options.learning_rate, *sizes)
    return numbers


if __name__ == "__main__":
    sys.exit(main())
