"""Acting in trials: several episodes of one task in a row, with a memory that lasts over all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import UserError
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.ops import finite
from metarl.ranks import Ranks
from metarl.sampling.episodes import Episodes
from metarl.sampling.rollout import Watch, run_episodes
from metarl.seeding import Key
from metarl.tasks import Tasks, TaskVectorEnv


@dataclass(frozen=True)
class TrialEpisodes:
    """N = T x E trials as they were acted; time first, as the recurrent kernels want it."""

    episodes: Episodes  # (T, E, H, ...), an "episode" being a whole trial; see `run_trials` for its observation
    inner: int  # episodes a trial
    log_prob: Tensor  # (H, N) float32, of the actions taken
    values: Tensor  # (H, N) float32, the critic's
    states: Tensor  # (C, N, ...) float32, the memory's state at the start of every chunk

    def returns(self) -> Tensor:
        """Undiscounted return of every inner episode, `(T, E, inner)` float64."""
        return self._by_episode(self.episodes.rewards.double() * self.episodes.valid)

    def steps(self) -> Tensor:
        """Steps that every inner episode took, `(T, E, inner)` int64."""
        return self._by_episode(self.episodes.valid.long())

    def gathered(self, ranks: Ranks, policy: RecurrentPolicy) -> TrialEpisodes:
        """The trials of all ranks, in the order of their tasks.

        The memory before a trial's first step is the same in all, and can be large, so it is not sent.
        """
        if ranks.size == 1:
            return self
        device = self.states.device
        mine = (self.log_prob.cpu(), self.values.cpu(), self.states[1:].cpu())
        parts = ranks.gather((self.episodes, mine))
        episodes = Episodes.concatenate([part for part, _ in parts])
        log_prob, values, later = (
            torch.cat(each, 1).to(device) for each in zip(*(own for _, own in parts), strict=True)
        )
        begun = policy.start(log_prob.shape[1], device)[None]
        return TrialEpisodes(episodes, self.inner, log_prob, values, torch.cat([begun, later]))

    def _by_episode(self, values: Tensor) -> Tensor:
        """Sums of `values (T, E, H)` over the steps of every inner episode."""
        ended = self.episodes.obs[..., -1]  # at a step: whether the step before ended an inner episode
        index = ended.cumsum(-1).long()
        return torch.zeros(*values.shape[:2], self.inner, dtype=values.dtype).scatter_add_(-1, index, values)

    def regret(self, tasks: Tasks) -> NDArray[np.float64]:
        """Mean of a bandit's best arm minus mean of the arm pulled, `(T, E, n)`.

        Raises:
            UserError: the tasks are no bandits.
        """
        mean = tasks.arrays.get("mean")
        if mean is None or self.episodes.actions.ndim != 3:
            raise UserError(f"regret is counted on bandits, whose tasks have arms with means, not {list(tasks.arrays)}")
        pulled = np.take_along_axis(mean[:, None, :], self.episodes.actions.numpy(), axis=2)
        regret: NDArray[np.float64] = mean.max(1)[:, None, None] - pulled
        return regret


def run_trials(
    env: TaskVectorEnv,
    policy: RecurrentPolicy,
    params: Params,
    key: Key,
    *,
    inner: int,
    chunk: int = 0,
    watch: Watch | None = None,
    likeliest: bool = False,
    task: Tensor | None = None,
) -> TrialEpisodes:
    """One trial in every row of a vector of trials.

    Args:
        env: T tasks x E trials; it is reset first. An observation ends with the previous reward and with 1 where an
            inner episode has just ended.
        policy: called with `params`; its memory starts anew.
        params: one set; what the policy computes is computed on their device.
        key: names the streams of start states and actions.
        inner: episodes a trial.
        chunk: steps between two memories that are kept; 0 keeps the first only.
        watch: called after the reset and after every step.
        likeliest: take the most likely actions instead of drawing.
        task: what the critic is told of each task, `(T, K)`.

    Returns:
        Episodes on the CPU; log-probabilities, values and memories on the device of the parameters.

    Raises:
        NonFiniteError: what the environments or the policy say is not finite.
    """
    n, horizon = env.num_envs, env.family.horizon
    chunk = chunk or horizon
    device = next(iter(params.values())).device
    streams = env.tasks.streams(key("action"))
    noise = torch.from_numpy(np.concatenate([policy.noise(rng, (env.replicas, horizon)) for rng in streams])).to(device)
    log_prob, values = torch.zeros(2, horizon, n, device=device)
    with torch.no_grad():
        told = None if task is None else policy.tell(params, task.to(device).repeat_interleave(env.replicas, 0))
    state = policy.start(n, device)
    states = policy.start(1, device).expand(1, *state.shape)
    if chunk < horizon:
        states = torch.zeros(math.ceil(horizon / chunk), *state.shape, device=device)  # zero where no trial got there

    def act(obs: Tensor, t: int) -> Tensor:
        nonlocal state
        if t % chunk == 0 and chunk < horizon:
            states[t // chunk] = state
        decision = policy.act(params, obs.reshape(n, -1).to(device), state, told)
        distribution = decision.distribution
        actions: Tensor = distribution.mode() if likeliest else distribution.sample(noise[:, t])
        log_prob[t], values[t] = distribution.log_prob(actions), decision.value
        state = decision.state
        return actions.cpu()

    with torch.no_grad():
        episodes = run_episodes(env, act, key, watch)
    for what, numbers in (("a value of the critic", values), ("an action's log-probability", log_prob)):
        finite.check_rows({what: numbers.T.reshape(len(env.tasks), -1)}, what, env.tasks)
    return TrialEpisodes(episodes, inner, log_prob, values, states)
