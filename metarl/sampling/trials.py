"""Acting in trials: several episodes of one task in a row, with a memory that lasts over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import UserError
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.ops import finite
from metarl.parallel import map_on_threads
from metarl.ranks import Ranks
from metarl.sampling.blocks import Blocks
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
        return TrialEpisodes(episodes, self.inner, log_prob, values, _states(policy, later))

    @staticmethod
    def concatenate(parts: Sequence[TrialEpisodes], policy: RecurrentPolicy) -> TrialEpisodes:
        """The trials of all parts, which that policy acted, in order."""
        if len(parts) == 1:
            return parts[0]
        episodes = Episodes.concatenate([part.episodes for part in parts])
        log_prob, values, later = (
            torch.cat(each, 1) for each in zip(*((p.log_prob, p.values, p.states[1:]) for p in parts), strict=True)
        )
        return TrialEpisodes(episodes, parts[0].inner, log_prob, values, _states(policy, later))

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


def _states(policy: RecurrentPolicy, later: Tensor) -> Tensor:
    """The memory's states at the starts of all chunks, `(C, N, ...)`, given those after the first.

    The first is the same in all trials: alone, it takes the room of one.
    """
    begun = policy.start(1, later.device).expand(1, *later.shape[1:])
    return torch.cat([begun, later]) if len(later) else begun


def run_trials(
    env: TaskVectorEnv | Blocks,
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
            inner episode has just ended. The blocks of `Blocks` act side by side, each on one intra-op thread: some
            compute while others step their environments.
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
    act_out = partial(
        _act_out, policy=policy, params=params, key=key, inner=inner, chunk=chunk, watch=watch, likeliest=likeliest
    )
    blocks = env.parts if isinstance(env, Blocks) else [env]
    tasks: Sequence[Tensor | None] = [task]
    if isinstance(env, Blocks):
        tasks = [None] * len(blocks) if task is None else env.split(task)
    if len(blocks) == 1:
        experience = act_out(blocks[0], task=tasks[0])
    else:
        pairs = list(zip(blocks, tasks, strict=True))
        parts = map_on_threads(len(pairs), lambda pair: act_out(pair[0], task=pair[1]), pairs)
        experience = TrialEpisodes.concatenate(parts, policy)
    named = (("a value of the critic", experience.values), ("an action's log-probability", experience.log_prob))
    for what, numbers in named:
        finite.check_rows({what: numbers.T.reshape(len(env.tasks), -1)}, what, env.tasks)
    return experience


def _act_out(
    env: TaskVectorEnv,
    *,
    policy: RecurrentPolicy,
    params: Params,
    key: Key,
    inner: int,
    chunk: int,
    watch: Watch | None,
    likeliest: bool,
    task: Tensor | None,
) -> TrialEpisodes:
    n, horizon = env.num_envs, env.family.horizon
    chunk = chunk or horizon
    device = next(iter(params.values())).device
    streams = env.tasks.streams(key("action"))
    noise = torch.from_numpy(np.concatenate([policy.noise(rng, (env.replicas, horizon)) for rng in streams])).to(device)
    log_prob, values = torch.zeros(2, horizon, n, device=device)
    with torch.no_grad():
        told = None if task is None else policy.tell(params, task.to(device).repeat_interleave(env.replicas, 0))
    state = policy.start(n, device)
    later = torch.zeros(math.ceil(horizon / chunk) - 1, *state.shape, device=device)  # zero where no trial got there

    def act(obs: Tensor, t: int) -> Tensor:
        nonlocal state
        if t and t % chunk == 0:
            later[t // chunk - 1] = state
        decision = policy.act(params, obs.reshape(n, -1).to(device), state, told)
        distribution = decision.distribution
        actions: Tensor = distribution.mode() if likeliest else distribution.sample(noise[:, t])
        log_prob[t], values[t] = distribution.log_prob(actions), decision.value
        state = decision.state
        return actions.cpu()

    with torch.no_grad():
        episodes = run_episodes(env, act, key, watch)
    return TrialEpisodes(episodes, inner, log_prob, values, _states(policy, later))
