"""Propositions 4.4 and 4.7-4.9 checked numerically, with their true scope. `python -m lco.analysis.theory OUT_DIR`.

Everything is float64 on a CPU, with linear logits z = z_old + J theta, for which the propositions are exact; V = 7.
Where a statement holds only locally or on average, the numbers say so: `docs/analysis.md`.

Shapes: N draws, V vocabulary, P parameters.
"""

import math
import sys
from typing import Any

import torch
from torch import Tensor

from lco.analysis import report
from lco.analysis.toy import algorithms, descend_linear, objectives, slope, step_batch
from lco.diagnostics import gradient_bound

VOCAB_SIZE = 7
BETA = 0.5
_VANISHED = 1e-14  # a loss of differences of such size is rounding
_ROUNDING = 1e-9  # of a loss near its target: below it a ratio says nothing
_LCO = ("lco-mse", "lco-lch", "lco-kld")


def randn(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Float64 normal numbers."""
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def directionality(generator: torch.Generator, num_draws: int = 500) -> dict[str, dict[str, Any]]:
    """Proposition 4.4 (Eq. 15): how far -grad L points towards a better point, beside how much better it is.

    Returns:
        By objective, one number a draw: `inner` = <-grad_theta L, theta* - theta>, `gain` = L(theta) - L(theta*) >= 0;
        `chain_error`, the largest difference of `inner` from the same product in the logits.
    """
    num_parameters = 5
    jacobian_NVP = randn(generator, num_draws, VOCAB_SIZE, num_parameters)
    offset_NV, old_NV = randn(generator, num_draws, VOCAB_SIZE), randn(generator, num_draws, VOCAB_SIZE, scale=2)
    advantages_NV = randn(generator, num_draws, VOCAB_SIZE)
    actions_N = torch.randint(VOCAB_SIZE, (num_draws,), generator=generator)
    points = [randn(generator, num_draws, num_parameters, scale=2) for _ in range(2)]

    def logits(theta_NP: Tensor) -> Tensor:
        return torch.einsum("nvp,np->nv", jacobian_NVP, theta_NP) + offset_NV

    batches = {name: step_batch(old_NV, advantages_NV, actions_N) for name in ("sft", *_LCO)}
    punished_NV = torch.zeros_like(old_NV).scatter(1, actions_N[:, None], -1.0)
    batches["ppo-unclipped"] = step_batch(old_NV, punished_NV, actions_N)
    found = {}
    for name, batch in batches.items():
        objective = objectives(batch, BETA)[name]
        values = torch.stack([objective(logits(point)) for point in points])
        is_first_worse_N = values[0] > values[1]
        here_NP, better_NP = (torch.where(is_first_worse_N[:, None], points[i], points[1 - i]) for i in (0, 1))
        theta_NP = here_NP.clone().requires_grad_(True)
        (gradient_NP,) = torch.autograd.grad(objective(logits(theta_NP)).sum(), theta_NP)
        inner_N = -(gradient_NP * (better_NP - here_NP)).sum(-1)
        in_logits_N = -(slope(objective, logits(here_NP)) * (logits(better_NP) - logits(here_NP))).sum(-1)
        found[name] = {
            "inner": inner_N.tolist(),
            "gain": (values.amax(0) - values.amin(0)).tolist(),
            "chain_error": float((inner_N - in_logits_N).abs().max()),
        }
    return found


def gradient_bounds(generator: torch.Generator, num_draws: int = 2000) -> dict[str, dict[str, Any]]:
    """Proposition 4.7 (Eqs. 16-18): gradient norms over their bounds sigma c(L), near and far from the target.

    Returns:
        By objective, one number a draw: `loss`, `ratio` (at most 1); for `lco-kld` also `sharp_ratio`, over sigma
        sqrt(L): a vector without sum is at most its 1-norm over sqrt(2), which improves Eq. 18 by sqrt(2).
    """
    old_NV, advantages_NV = randn(generator, num_draws, VOCAB_SIZE, scale=2), randn(generator, num_draws, VOCAB_SIZE)
    batch = step_batch(old_NV, advantages_NV, torch.zeros(num_draws, dtype=torch.long))
    distance_N1 = torch.logspace(-3, 1.3, num_draws, dtype=torch.float64)[:, None]
    noise_NV = randn(generator, num_draws, VOCAB_SIZE)
    noise_NV[::2] = noise_NV[::2].sign()  # equal residuals: where the bounds of MSE and log-cosh are met
    logits_NV = old_NV + advantages_NV / BETA + distance_N1 * noise_NV
    jacobian_NVP = randn(generator, num_draws, VOCAB_SIZE, VOCAB_SIZE)
    jacobian_NVP[::2] = torch.eye(VOCAB_SIZE, dtype=torch.float64)
    sigma_N = torch.linalg.matrix_norm(jacobian_NVP, 2)
    sizes_N = torch.full((num_draws,), VOCAB_SIZE)
    found = {}
    for name in _LCO:
        objective = objectives(batch, BETA)[name]
        loss_N, slope_NV = objective(logits_NV).clamp(min=0), slope(objective, logits_NV)
        norm_N = torch.einsum("nvp,nv->np", jacobian_NVP, slope_NV).norm(dim=-1)
        bound_N = sigma_N * gradient_bound(loss_N, algorithms(BETA)[name], sizes_N)
        is_seen_N = loss_N > _ROUNDING
        found[name] = {"loss": loss_N[is_seen_N].tolist(), "ratio": (norm_N / bound_N)[is_seen_N].tolist()}
        if name == "lco-kld":
            found[name]["sharp_ratio"] = (norm_N / (sigma_N * loss_N.sqrt()))[is_seen_N].tolist()
    return found


def convergence(generator: torch.Generator) -> dict[str, dict[str, Any]]:
    """Propositions 4.8 and 4.9 (Eqs. 19, 20): losses along gradient descent, beside what the rates promise.

    Returns:
        `mse`: full rank. `mse_singular`: fewer parameters than logits, where rho = 1 and the loss stalls. `lch_near`,
        `lch_far`: the printed rate for log-cosh near the target and far from it, where it fails. `lch_global`: in the
        norm |delta| with weight K^-1, with rho_M = max(|1 - eta tau lambda_min|, |1 - eta lambda_max|),
        tau = tanh(M) / M, M = the largest residual met. Each with `value` and `bound` by step.
    """
    old_NV, advantages_NV = randn(generator, 1, VOCAB_SIZE), randn(generator, 1, VOCAB_SIZE)
    advantages_NV = advantages_NV - advantages_NV.mean()
    full_VP, thin_VP = randn(generator, VOCAB_SIZE, 12), randn(generator, VOCAB_SIZE, 3)
    found: dict[str, dict[str, Any]] = {}

    def run(name: str, jacobian_VP: Tensor, step_size: float, scale: float, num_steps: int) -> tuple[Any, ...]:
        batch = step_batch(old_NV, scale * advantages_NV, torch.zeros(1, dtype=torch.long))
        objective = objectives(batch, BETA)[name]
        eigenvalues_V = torch.linalg.eigvalsh(jacobian_VP @ jacobian_VP.T)
        rate = step_size / float(eigenvalues_V[-1])
        path = descend_linear(objective, old_NV, jacobian_VP[None], rate, num_steps)
        residuals = [(logits_NV - old_NV - scale * advantages_NV / BETA)[0] for logits_NV in path]
        return [float(objective(logits_NV)) for logits_NV in path], residuals, eigenvalues_V, rate

    def rated(values: list[float], rho: float, first: float) -> dict[str, Any]:
        return {"value": values, "bound": [first * rho ** (2 * k) for k in range(len(values))], "rho": rho}

    for name, jacobian_VP, num_steps in (("mse", full_VP, 200), ("mse_singular", thin_VP, 1000)):
        values, residuals, eigenvalues_V, rate = run("lco-mse", jacobian_VP, 0.45, 1.0, num_steps)
        rho = float((1 - 2 * rate * eigenvalues_V).abs().max())
        found[name] = rated(values, rho, float(residuals[0] @ residuals[0]))
    for name, scale in (("lch_near", 1e-3), ("lch_far", 8.0)):
        values, residuals, eigenvalues_V, rate = run("lco-lch", full_VP, 0.9, scale, 300)
        rho = float((1 - rate * eigenvalues_V).abs().max())
        found[name] = rated(values, rho, float(residuals[0] @ residuals[0]) / 2)
    inverse_VV = torch.linalg.inv(full_VP @ full_VP.T)
    largest = max(float(residual_V.abs().max()) for residual_V in residuals)
    tau = math.tanh(largest) / largest
    rho = max(abs(1 - rate * tau * float(eigenvalues_V[0])), abs(1 - rate * float(eigenvalues_V[-1])))
    weighted = [float(residual_V @ inverse_VV @ residual_V) for residual_V in residuals]
    found["lch_global"] = rated(weighted, rho, weighted[0])
    return found


def shifts(generator: torch.Generator, num_draws: int = 60) -> dict[str, Any]:
    """The mean-zero argument of section 4.4: the target z* + c for several c, with advantages of mean 0.

    Returns:
        `bound` = |A / beta + c| by c, smallest at 0; `residual`, what LCO-MSE leaves after 30 steps, averaged over
        random Jacobians; `share_helped`, the share of single draws in which some c other than 0 was faster;
        `kld_difference`, how far LCO-KLD's policies differ from those of c = 0.
    """
    grid = (-4.0, -1.0, 0.0, 1.0, 4.0)
    old_NV, advantages_NV = (randn(generator, num_draws, VOCAB_SIZE) for _ in range(2))
    advantages_NV = advantages_NV - advantages_NV.mean(-1, keepdim=True)
    jacobian_NVP = randn(generator, num_draws, VOCAB_SIZE, 12)
    rate_N1 = 0.2 / torch.linalg.matrix_norm(jacobian_NVP, 2)[:, None] ** 2
    bounds, residuals, policies = {}, {}, []
    for shift in grid:
        moved_NV = advantages_NV + BETA * shift
        losses = objectives(step_batch(old_NV, moved_NV, torch.zeros(num_draws, dtype=torch.long)), BETA)
        last_NV = descend_linear(losses["lco-mse"], old_NV, jacobian_NVP, rate_N1, 30)[-1]
        residuals[shift] = (last_NV - old_NV - moved_NV / BETA).norm(dim=-1)
        bounds[shift] = float((moved_NV / BETA).norm(dim=-1).mean())
        policies.append(descend_linear(losses["lco-kld"], old_NV, jacobian_NVP, rate_N1, 30)[-1].softmax(-1))
    others_N = torch.stack([values_N for shift, values_N in residuals.items() if shift]).amin(0)
    return {
        "bound": bounds,
        "residual": {shift: float(values_N.mean()) for shift, values_N in residuals.items()},
        "share_helped": float((others_N < residuals[0.0]).double().mean()),
        "kld_difference": max(float((policy_NV - policies[2]).abs().max()) for policy_NV in policies),
    }


def first_step(generator: torch.Generator, betas: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)) -> dict[str, Any]:
    """At z = z_old: -beta grad L_KLD beside the policy gradient over all actions, pi (A - E_pi A)."""
    old_NV, advantages_NV = randn(generator, 1, VOCAB_SIZE, scale=2), randn(generator, 1, VOCAB_SIZE)
    probs_NV = old_NV.softmax(-1)
    gradient_NV = probs_NV * (advantages_NV - (probs_NV * advantages_NV).sum(-1, keepdim=True))
    batch = step_batch(old_NV, advantages_NV, torch.zeros(1, dtype=torch.long))
    errors = [float((beta * slope(objectives(batch, beta)["lco-kld"], old_NV) + gradient_NV).norm()) for beta in betas]
    return {"beta": list(betas), "error": errors}


def analyse(seed: int) -> dict[str, Any]:
    """All numbers, and under `claims` what they are held against: text, measured value, and whether it holds."""
    generator = torch.Generator().manual_seed(seed)
    numbers: dict[str, Any] = {
        "directionality": directionality(generator),
        "gradient_bounds": gradient_bounds(generator),
        "convergence": convergence(generator),
        "shifts": shifts(generator),
        "first_step": first_step(generator),
    }
    return numbers | {"claims": claims(numbers)}


def claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """What the propositions say of these numbers, one claim each, with the scope in which it is true."""
    found: list[dict[str, Any]] = []

    def claim(text: str, value: float, holds: bool) -> None:
        found.append({"claim": text, "value": value, "holds": holds})

    directions, bounds = numbers["directionality"], numbers["gradient_bounds"]
    convex = [name for name in directions if name != "ppo-unclipped"]
    worst = min(
        i - g for name in convex for i, g in zip(directions[name]["inner"], directions[name]["gain"], strict=True)
    )
    claim("4.4: <-grad, theta* - theta> - (L - L*) >= 0 for SFT and LCO; smallest", worst, worst >= -1e-9)
    chain = max(directions[name]["chain_error"] for name in directions)
    claim("4.4: the same product in the logits; largest difference", chain, chain <= 1e-9)
    inner = directions["ppo-unclipped"]["inner"]
    against = sum(value < 0 for value in inner) / len(inner)
    claim("4.4 has no like for PPO, A < 0: share of better points against -grad", against, against > 0.1)
    for name, equation in zip(_LCO, (16, 17, 18), strict=True):
        ratio = max(bounds[name]["ratio"])
        claim(f"4.7, Eq. {equation}: norm over bound, {report.TITLES[name]}; largest", ratio, 0.5 < ratio <= 1 + 1e-9)
    sharp = max(bounds["lco-kld"]["sharp_ratio"])
    claim("4.7: Eq. 18 holds without its factor sqrt(2), too; largest", sharp, sharp <= 1 + 1e-6)
    runs = numbers["convergence"]
    excess = {name: _excess(run) for name, run in runs.items()}
    claim("4.8: L_MSE over rho^2k |A|^2 / beta^2, full rank; largest", excess["mse"], excess["mse"] <= 1 + 1e-9)
    stalled = runs["mse_singular"]["value"][-1]
    claim("4.8 needs full rank: L_MSE after 1000 steps with P < V", stalled, stalled > 1e-2)
    near, far = excess["lch_near"], excess["lch_far"]
    claim("4.9: L_LCH over rho^2k |A|^2 / (2 beta^2) near the target; largest", near, near <= 1 + 1e-4)
    claim("4.9 is local: the same far from it", far, far > 1)
    whole = excess["lch_global"]
    claim("4.9, global form with rho_M in the norm of K^-1; largest", whole, whole <= 1 + 1e-9)
    moved = numbers["shifts"]
    best = min(moved["residual"], key=moved["residual"].get)
    claim("section 4.4: the shift with the least residual on average", best, best == 0)
    claim(
        "... and the share of single draws in which another was faster",
        moved["share_helped"],
        moved["share_helped"] < 1,
    )
    claim(
        "... and void for LCO-KLD: largest difference of its policies",
        moved["kld_difference"],
        moved["kld_difference"] < 1e-9,
    )
    errors = numbers["first_step"]["error"]
    order = math.log10(errors[-2] / errors[-1])
    claim("first step: error against the policy gradient, order in 1 / beta", order, 0.9 < order < 1.1)
    return found


def _excess(run: dict[str, Any]) -> float:
    """Largest value over its bound, where the value is more than rounding."""
    pairs = zip(run["value"], run["bound"], strict=True)
    return max(float(value / bound) for value, bound in pairs if value > _VANISHED)


def figure(numbers: dict[str, Any]) -> Any:
    """The four panels: directionality, bounds, convergence of LCO-MSE and of LCO-LCH."""
    drawn, axes = report.panels(2, 2, "Logits convexity, numerically (V = 7, linear logits)")
    for name in ("ppo-unclipped", "sft", *_LCO):
        points = numbers["directionality"][name]
        color = report.STYLES[name]["color"]
        axes[0].scatter(
            points["gain"], points["inner"], s=5, alpha=0.55, color=color, label=report.TITLES[name].partition(",")[0]
        )
    axes[0].axline((1e-3, 1e-3), (1.0, 1.0), color="#555555", linewidth=0.9)
    axes[0].set_xscale("symlog", linthresh=0.1)
    axes[0].set_yscale("symlog", linthresh=0.1)
    axes[0].set_xlim(left=0)
    report.describe(axes[0], "Prop. 4.4: convex losses stay above", "L(θ) − L(θ*)", "⟨−∇L(θ), θ* − θ⟩")
    axes[0].legend(markerscale=2.5, loc="lower left")
    for name in _LCO:
        run = numbers["gradient_bounds"][name]
        axes[1].scatter(
            run["loss"], run["ratio"], s=5, alpha=0.55, color=report.STYLES[name]["color"], label=report.TITLES[name]
        )
    axes[1].axhline(1.0, color="#555555", linewidth=0.9)
    axes[1].set(xscale="log", ylim=(0, 1.1), xlim=(1e-7, None))
    report.describe(axes[1], "Prop. 4.7: no gradient exceeds its bound", "loss", "gradient norm / bound")
    axes[1].legend(markerscale=2.5, loc="lower right")
    runs = numbers["convergence"]
    _decay(axes[2], runs["mse"], "lco-mse", "full rank")
    steps = range(len(runs["mse"]["value"]))
    report.line(
        axes[2], "ppo-unclipped", steps, runs["mse_singular"]["value"][: len(steps)], "P < V: stalls", color="#555555"
    )
    report.describe(axes[2], "Prop. 4.8: LCO-MSE", "step", "loss")
    _decay(axes[3], runs["lch_near"], "lco-lch", "near the target")
    far = runs["lch_far"]
    span = range(len(far["value"]))
    report.line(axes[3], "ppo", span, far["value"], "far: printed rate fails", color="#D55E00")
    report.line(axes[3], "ppo", span, far["bound"], "its printed bound", color="#D55E00", linestyle=(0, (1, 1.2)))
    report.describe(axes[3], "Prop. 4.9: LCO-LCH, near the target only", "step", "loss")
    for panel in axes[2:]:
        panel.set(yscale="log")
    axes[3].set_ylim(bottom=1e-14)
    return drawn


def _decay(axes: Any, run: dict[str, Any], name: str, label: str) -> None:
    steps = range(len(run["value"]))
    report.line(axes, name, steps, run["value"], label, linestyle="-")
    report.line(axes, name, steps, run["bound"], "its bound", linestyle=(0, (1, 1.2)))


def main(arguments: list[str] | None = None) -> int:
    """Writes numbers and figure, prints every claim; 1 if one does not hold."""
    options = report.parser(__doc__.partition("\n")[0]).parse_args(arguments)
    torch.set_num_threads(1)
    numbers = analyse(options.seed)
    report.write(options.out_dir, "theory", numbers, {"theory": figure(numbers)})
    for claim in numbers["claims"]:
        print(f"{'holds' if claim['holds'] else 'FAILS'}  {claim['claim']}: {claim['value']:.4g}")
    return 0 if all(claim["holds"] for claim in numbers["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
