"""Trials as a recurrent learner takes them: advantages over whole trials, cut into sequences, time first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.learning.recurrent_settings import Settings
from metarl.ops import returns
from metarl.ops.reward_scale import RewardScale
from metarl.sampling.trials import TrialEpisodes

BY_ROW = ("states", "task")  # of `Sequences`: the fields that have no axis of steps


@dataclass(frozen=True)
class Sequences:
    """S sequences of L steps: whole trials, or chunks of them; views of memory in which a sequence lies together."""

    obs: Tensor  # (L, S, D) float32
    actions: Tensor  # (L, S) int64, or (L, S, A) float32
    log_prob: Tensor  # (L, S) float32, when acting
    advantages: Tensor  # (L, S) float32, 0 where invalid
    targets: Tensor  # (L, S) float32, of the critic
    valid: Tensor  # (L, S) float32, 1 for steps that were really taken
    states: Tensor  # (S, ...) float32, the memory's before the first step
    task: Tensor | None = None  # (S, K) float32, what the critic is told
    advice: Tensor | None = None  # (L, S, A) bool, the best actions, where a teacher says so

    def __len__(self) -> int:
        return self.states.shape[0]

    def take(self, rows: Tensor) -> Sequences:
        """Some of the sequences."""

        def rows_of(value: Tensor) -> Tensor:
            same = value.stride(0) == 0  # in all rows: whole trials begin with an empty memory
            return value[: len(rows)] if same else value.index_select(0, rows)

        return self._each(lambda value: [rows_of(value)])[0]

    def tensor_split(self, parts: int) -> list[Sequences]:
        """As many parts in a row, of nearly equal size, as views."""
        return self._each(lambda value: value.tensor_split(parts))

    def _each(self, function: Callable[[Tensor], Sequence[Tensor]]) -> list[Sequences]:
        """What a function gives for every field with its rows first, put together."""

        def results(name: str, value: Tensor) -> Sequence[Tensor]:
            return function(value) if name in BY_ROW else [x.transpose(0, 1) for x in function(value.transpose(0, 1))]

        by_name = {name: results(name, value) for name, value in vars(self).items() if value is not None}
        return [Sequences(**dict(zip(by_name, fields, strict=True))) for fields in zip(*by_name.values(), strict=True)]


def prepare(
    experience: TrialEpisodes,
    settings: Settings,
    scale: RewardScale,
    task: Tensor | None = None,
    advice: Tensor | None = None,
) -> tuple[Sequences, float]:
    """What PPO learns from: advantages over whole trials, cut into chunks. Also the critic's explained variance.

    Args:
        experience: T x E trials.
        settings: of PPO.
        scale: of the rewards.
        task: what the critic was told of each task, `(T, K)`.
        advice: a teacher's best actions, `(N, H, A)`.
    """
    episodes = experience.episodes
    valid = episodes.valid.flatten(0, 1)  # (N, H)
    rewards = episodes.rewards.flatten(0, 1).double() / (scale.deviation if settings.normalise_rewards else 1.0)
    values = experience.values.T.cpu().double()
    advantages = returns.gae(rewards, values, valid, settings.gamma, settings.gae_lambda)
    targets = advantages + values * valid
    explained = returns.explained_variance(*returns.residuals(values, targets, valid))
    if settings.normalise_advantages:
        advantages = returns.normalise(advantages, valid, (0, 1))
    device, length = experience.log_prob.device, settings.chunk or valid.shape[1]

    def cut(x: Tensor) -> Tensor:
        """`(N, H, ...)` to `(L, C * N, ...)`, padded with zeros at the end; a sequence lies together in memory."""
        x = x.transpose(0, 1).to(device)
        missing = -x.shape[0] % length
        if missing:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        return x.reshape(-1, length, *x.shape[1:]).transpose(1, 2).flatten(0, 1).contiguous().transpose(0, 1)

    sequences = Sequences(
        obs=cut(episodes.obs.flatten(0, 1)),
        actions=cut(episodes.actions.flatten(0, 1)),
        log_prob=cut(experience.log_prob.T),
        advantages=cut(advantages.float()),
        targets=cut(targets.float()),
        valid=cut(valid.float()),
        states=(states := experience.states.flatten(0, 1)),
        task=None if task is None else _by_sequence(task.to(device), len(valid), len(states)),
        advice=None if advice is None else cut(advice),
    )
    return sequences, explained


def _by_sequence(task: Tensor, trials: int, sequences: int) -> Tensor:
    """`(T, K)` for every chunk of every trial of each task, `(S, K)`."""
    return task.repeat_interleave(trials // len(task), 0).repeat(sequences // trials, 1)
