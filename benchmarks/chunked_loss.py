"""Time and peak memory of an LCO-KLD step's head and loss: all tokens at once against chunks of them.

    python benchmarks/chunked_loss.py --tokens 2048 --vocabulary 49152 --hidden 576 --chunk 128

The policy, the behaviour policy and the two halves of a DPO reward model each have a head of their own, the dense
advantage is over the whole vocabulary, and the policy's head is trained. Each variant runs in a process of its own; its
peak is what it needed above hidden states and heads. The last line compares loss and gradients.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from lco.advantage_config import DpoAdvantage
from lco.advantages import dense_dpo
from lco.algorithms import LcoKld
from lco.diagnostics import token_sums
from lco.fused import chunked_step_loss
from lco.head import Head
from lco.losses import lco_kld
from lco.rollout import Batch, Support

BETA = 0.1
CONFIG = LcoKld(advantage=DpoAdvantage(reward_model="unused"), beta=BETA)


def inputs(options: argparse.Namespace, device: torch.device) -> tuple[Tensor, list[Tensor], list[Head], Batch]:
    """Hidden states of the policy and of the three frozen models, the heads, the batch without its support."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.bfloat16 if options.bfloat16 else torch.float32
    count, width, vocabulary = options.tokens, options.hidden, options.vocabulary

    def hidden() -> Tensor:
        return torch.randn(count, width, generator=generator).to(device, kind)

    def head(*, is_trained: bool) -> Head:
        weight = torch.randn(vocabulary, width, generator=generator).mul_(width**-0.5).to(device, kind)
        return Head(weight.requires_grad_(is_trained), None, vocabulary, kind)

    states, frozen = hidden().requires_grad_(True), [hidden() for _ in range(3)]
    heads = [head(is_trained=number == 0) for number in range(4)]
    zeros_N = torch.zeros(count, device=device)
    none_BT = torch.zeros(count, 1, dtype=torch.long, device=device)
    batch = Batch(
        input_ids_BT=none_BT,
        attention_mask_BT=none_BT + 1,
        mask_BT=none_BT == 0,
        num_tokens_B=torch.ones(count, dtype=torch.long, device=device),
        actions_N=torch.randint(vocabulary, (count,), generator=generator).to(device),
        weights_N=zeros_N + 1 / count,
        behaviour_logprobs_N=zeros_N,
        advantages_N=zeros_N,
        reference_logprobs_N=zeros_N,
    )
    return states, frozen, heads, batch


@torch.no_grad()
def support(frozen: list[Tensor], heads: list[Head]) -> Support:
    """The full-vocabulary support of some tokens."""
    old_NV, tuned_NV, kept_NV = (head.logits(hidden) for head, hidden in zip(heads[1:], frozen, strict=True))
    zeros_N = old_NV.new_zeros(len(old_NV))
    return Support(
        ids_NK=None,
        valid_NK=None,
        behaviour_logits_NK=old_NV,
        advantages_NK=dense_dpo(tuned_NV, kept_NV, BETA),
        behaviour_logsumexp_N=old_NV.logsumexp(-1),
        behaviour_max_N=old_NV.amax(-1),
        tail_advantages_N=zeros_N,
        is_agreed_N=zeros_N > 0,
    )


def step(options: argparse.Namespace, states: Tensor, frozen: list[Tensor], heads: list[Head], batch: Batch) -> Tensor:
    """Head, loss, metrics and gradients of one step; gives the loss."""
    if options.variant == "naive":
        batch.support = support(frozen, heads)
        logits_NV = heads[0].logits(states)
        token_sums(logits_NV.detach(), batch, CONFIG)
        loss = (lco_kld(logits_NV, batch, CONFIG) * batch.weights_N).sum()
    else:
        position = iter(range(0, options.tokens, options.chunk))

        def prepared(chunk: Batch) -> Batch:
            start = next(position)
            chunk.support = support([hidden[start : start + options.chunk] for hidden in frozen], heads)
            return chunk

        loss, _ = chunked_step_loss(heads[0], states, batch, CONFIG, options.chunk, prepared)
    loss.backward()
    return loss.detach()


def measure(options: argparse.Namespace) -> None:
    """One variant: prints its figures as JSON."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    states, frozen, heads, batch = inputs(options, device)
    if device.type == "cuda":
        step(options, *inputs(options, device))  # warms libraries up
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _resident("VmHWM")
    started, used = time.perf_counter(), _cpu_seconds()
    loss = step(options, states, frozen, heads, batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
        seconds, peak = time.perf_counter() - started, torch.cuda.max_memory_allocated() - before
    else:
        seconds, peak = _cpu_seconds() - used, _resident("VmHWM") - before
    weight_VH = heads[0].weight_VH
    assert states.grad is not None and weight_VH.grad is not None
    norms = [states.grad.float().norm().item(), weight_VH.grad.float().norm().item()]
    print(json.dumps({"seconds": seconds, "peak": peak, "loss": loss.item(), "norms": norms}))


def _cpu_seconds() -> float:
    """Of this process; unlike the clock it does not see the neighbours."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measures both variants and prints them side by side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--bfloat16", action="store_true", help="states and heads in bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=["naive", "chunked"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        return measure(options)
    found = {}
    for variant in ("naive", "chunked"):
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        found[variant] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        one = found[variant]
        print(f"{variant:8} {one['seconds']:7.2f} s  {one['peak'] / 2**20:8.0f} MiB", flush=True)
    naive, chunked = found["naive"], found["chunked"]
    print(f"ratio    {chunked['seconds'] / naive['seconds']:7.2f}    {chunked['peak'] / naive['peak']:8.2f}")
    pairs = zip([naive["loss"], *naive["norms"]], [chunked["loss"], *chunked["norms"]], strict=True)
    print("relative difference of loss, gradient of states, gradient of head:", end=" ")
    print(*(f"{abs(a - b) / abs(a):.1e}" for a, b in pairs))


if __name__ == "__main__":
    main()
