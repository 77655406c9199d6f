"""The critic of generalised advantages: a copy of the policy's backbone with a value head, fitted beside the policy.

Shapes: B sequences, T time, N trained tokens of all sequences one after another, H hidden width.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lco import distributed
from lco.advantage_config import GaeAdvantage
from lco.advantages import generalized_advantages
from lco.algorithms import TrainConfig
from lco.memory import Memory, limits_of
from lco.optimization import Fitting
from lco.policy import Policy, load_trained
from lco.rollout import Batch

_SMALL_VARIANCE = 1e-8  # of returns that are equal up to rounding


class ValueModel(nn.Module):
    """V(s) after every token: a linear head, zero at first, on the last hidden states of a language model."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.backbone = policy.model.base_model
        self.head = nn.Linear(int(policy.model.config.get_text_config().hidden_size), 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._policy = policy

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Values `[B, T]`, float32."""
        with self._policy.computing():
            output = self.backbone(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
        values_BT1: Tensor = self.head(output.last_hidden_state.float())
        return values_BT1[..., 0]


class Critic:
    """A value model with its own optimizer: assesses rollouts, and learns their returns."""

    def __init__(self, config: TrainConfig, advantage: GaeAdvantage, memory: Memory) -> None:
        """Loads the second copy of the policy.

        Args:
            memory: the run's, so that sizes that did not fit are kept in one place.

        Raises:
            ValueError: as `load_trained`.
        """
        self.advantage = advantage
        self.limits = limits_of(config)
        total_steps = config.iterations * config.inner_epochs * config.steps_per_epoch
        self.memory = memory
        self.model = ValueModel(load_trained(Path(config.policy), config))
        self.fitting = Fitting(self.model, advantage.critic, total_steps, config.parallel)

    def is_pretraining(self, iteration: int) -> bool:
        """Whether an iteration, counted from 0, fits the critic alone."""
        return iteration < self.advantage.value_pretraining_iterations

    @torch.no_grad()
    def assess(self, batch: Batch, rewards_N: Tensor, is_truncated_B: Tensor, iteration: int) -> None:
        """Sets the batch's values, the returns that the critic learns, and the policy's advantages."""
        lengths = batch.attention_mask_BT.sum(1).tolist()
        pieces = distributed.cut(list(range(len(lengths))), self.limits.max_sequences)

        def values(piece: list[int]) -> list[tuple[Tensor, Tensor]]:
            def some(part: range) -> tuple[Tensor, Tensor]:
                return self._values(batch, piece[part.start : part.stop])

            return self.memory.each("scoring with the critic", [lengths[i] for i in piece], self.limits, some)

        with self.fitting.replica.unsharded():
            mine = [values(piece) for piece in distributed.share(pieces)]
        parts = [part for of_piece in distributed.gather(mine) for part in of_piece]
        values_N, ends_B = (torch.cat(column) for column in zip(*parts, strict=True))
        goes_on_B = is_truncated_B & self.advantage.bootstrap_truncated
        last_values_B = torch.where(goes_on_B, ends_B, 0.0)

        def advantages(gae_lambda: float) -> Tensor:
            return generalized_advantages(
                rewards_N, values_N, last_values_B, batch.num_tokens_B, self.advantage.discount, gae_lambda
            )

        critic_lambda = 1.0 if self.is_pretraining(iteration) else self.advantage.critic_lambda
        batch.values_N = values_N
        batch.returns_N = values_N + advantages(critic_lambda)
        batch.advantages_N = advantages(self.advantage.policy_lambda)

    def fit(self, batch: Batch, step: int) -> dict[str, float]:
        """One optimizer step of the critic, averaged over tokens as the policy's loss is.

        Returns:
            `train/value_loss`, the critic's gradient norm and learning rate, the share of tokens whose clipped value
            decides, and `train/explained_variance`: 1 - Var(R - V) / Var(R) of the step's returns before the update,
            unless these are all equal.
        """
        assert batch.returns_N is not None
        clip = self.advantage.value_clip
        zero = torch.zeros((), dtype=torch.float64, device=batch.returns_N.device)
        sums = {"residual": zero, "residual_squared": zero, "clipped": zero}

        def loss_of(piece: range, is_mine: bool) -> Tensor:
            micro = batch.select(torch.tensor(piece, device=batch.num_tokens_B.device))
            values_N = self.model(micro.input_ids_BT, micro.attention_mask_BT)[micro.mask_BT]
            assert micro.returns_N is not None and micro.values_N is not None
            loss_N = value_loss(values_N, micro.values_N, micro.returns_N, clip)
            if is_mine:
                residual_N = (micro.returns_N - values_N.detach()).double()
                is_clipped_N = loss_N.detach() > value_loss(values_N.detach(), micro.values_N, micro.returns_N, 0.0)
                for name, value_N in (
                    ("residual", residual_N),
                    ("residual_squared", residual_N**2),
                    ("clipped", is_clipped_N.double()),
                ):
                    sums[name] = sums[name] + value_N.sum()
            return (loss_N * micro.weights_N).sum() * is_mine

        def gradients(pieces: list[range]) -> Tensor:
            sums.update(dict.fromkeys(sums, zero))
            return self.fitting.accumulate([partial(loss_of, *dealt) for dealt in distributed.rounds(pieces)])

        lengths = batch.attention_mask_BT.sum(1).tolist()
        least = distributed.count()
        loss = self.memory.whole("fitting the critic", lengths, self.limits, gradients, least)
        metrics = self.fitting.apply(step, loss)
        count = len(batch.returns_N)
        means = {name: value.item() / count for name, value in distributed.summed(sums).items()}
        found = {
            "train/value_loss": metrics["train/loss"],
            "train/critic_grad_norm": metrics["train/grad_norm"],
            "train/critic_learning_rate": metrics["train/learning_rate"],
            "train/value_clip_fraction": means["clipped"],
        }
        variance = batch.returns_N.double().var(correction=0).item()
        if variance > _SMALL_VARIANCE:
            unexplained = means["residual_squared"] - means["residual"] ** 2
            found["train/explained_variance"] = 1 - unexplained / variance
        return found

    def _values(self, batch: Batch, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Of some sequences: V before each token, `[N]`, and after the last, `[B]`."""
        micro = batch.select(torch.tensor(indices, device=batch.num_tokens_B.device))
        values_BT = self.model(micro.input_ids_BT, micro.attention_mask_BT)
        last_B1 = micro.attention_mask_BT.sum(1, keepdim=True) - 1
        return values_BT[micro.mask_BT], values_BT.gather(1, last_B1)[:, 0]


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (V_clipped - R)^2) / 2 of each token, V_clipped at most `clip` away from the old value, `[N]`.

    With `clip` 0 it is (V - R)^2 / 2.
    """
    squares_N = (values_N - returns_N) ** 2
    if clip > 0:
        clipped_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        squares_N = torch.maximum(squares_N, (clipped_N - returns_N) ** 2)
    return squares_N / 2
