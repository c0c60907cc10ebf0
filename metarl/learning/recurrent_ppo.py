"""Proximal policy optimisation on whole trials, for actor-critics with a memory (Schulman et al. 2017).

    minimise  mean_t -min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t) + w (V_t - R_t)^2 / 2 - b H(pi_t),
    rho_t = pi(a_t | h_t) / pi_old(a_t | h_t),   R_t = A_t + V_old_t,

with generalised advantage estimates A_t over the whole trial: they flow across the ends of its episodes,
terminated or truncated, and stop at its end, which is terminal.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.learning.recurrent_settings import Settings, annealed
from metarl.learning.sequence_blocks import blocks, shared
from metarl.learning.sequences import Sequences, prepare
from metarl.learning.shared_gradient import LOSS, add_gradients, sum_gradients
from metarl.learning.teacher import NO_LESSONS, Lessons, log_probability
from metarl.learning.told_task import ToldTask
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.ops import finite
from metarl.ops.reward_scale import RewardScale
from metarl.ops.surrogates import clipped_surrogate
from metarl.ranks import ALONE, Ranks
from metarl.runs.run import Run
from metarl.sampling.trials import TrialEpisodes
from metarl.seeding import Key
from metarl.tasks import Tasks

EPSILON = 1e-5  # of Adam, as in OpenAI's baselines


def ppo_loss(
    policy: RecurrentPolicy, params: Params, batch: Sequences, settings: Settings, count: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, a mean over valid steps, and its diagnostics; a teacher's advice takes the surrogate's place.

    Args:
        policy: that acted.
        params: to be learned.
        batch: a minibatch, or a part of one.
        settings: of PPO.
        count: the minibatch's valid steps, which the sums over a part are divided by; None for the whole.
    """
    decision = policy.sequence(params, batch.obs, batch.states, batch.task)
    log_prob = decision.distribution.log_prob(batch.actions)
    count = batch.valid.sum().clamp(min=1) if count is None else count

    def mean(x: Tensor) -> Tensor:
        return (x * batch.valid).sum() / count

    if batch.advice is None:
        name, gain = "policy/surrogate", clipped_surrogate(log_prob, batch.log_prob, batch.advantages, settings.clip)
    else:
        name, gain = "teacher/log_probability", log_probability(decision.distribution, batch.advice)
    objective = mean(gain)
    value_loss = 0.5 * mean((decision.value - batch.targets) ** 2)
    entropy = mean(decision.distribution.entropy())
    loss = -objective + settings.value_weight * value_loss - settings.entropy_weight * entropy
    with torch.no_grad():
        log_ratio = log_prob - batch.log_prob
        diagnostics = {
            name: objective.detach(),
            "policy/entropy": entropy.detach(),
            "policy/approximate_kl": mean(torch.expm1(log_ratio) - log_ratio),
            "policy/clip_fraction": mean((torch.expm1(log_ratio).abs() > settings.clip).float()),
            "value/loss": value_loss.detach(),
        }
    return loss, diagnostics


def project(policy: RecurrentPolicy, params: Params) -> None:
    """Put parameters back within the policy's bounds, in place: their optimiser holds these very tensors."""
    with torch.no_grad():
        for name, value in policy.project(params).items():
            params[name].copy_(value)


def update(
    policy: RecurrentPolicy,
    params: Params,
    optimiser: torch.optim.Optimizer,
    batch: Sequences,
    settings: Settings,
    key: Key,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """PPO's epochs over one batch; changes `params` in place. Returns diagnostics, means over all gradient steps.

    Ranks, which all have the whole batch, share the sequences of every minibatch and take the same steps. What a rank
    has of a minibatch is differentiated in `blocks`, on `settings.threads`.

    Raises:
        NonFiniteError: a loss or its gradient is not finite; no step was taken with it, and its `tasks` are the
            sequences to blame. Or a parameter is not, after the steps.
    """
    total: dict[str, Tensor] = {}
    leaves = list(params.values())
    steps = 0
    for epoch in range(settings.epochs):
        order = torch.from_numpy(key("order", epoch).numpy().permutation(len(batch))).to(batch.states.device)
        for rows in order.tensor_split(settings.minibatches):
            part, count = shared(batch, rows, ranks)
            part_loss = partial(ppo_loss, policy, params, settings=settings, count=count)
            diagnostics = sum_gradients(part_loss, blocks(part, policy.memory), leaves, settings.threads)
            diagnostics = add_gradients(ranks, leaves, diagnostics)
            loss = diagnostics.pop(LOSS)
            norm = torch.nn.utils.clip_grad_norm_(leaves, settings.max_gradient_norm)
            diagnostics["policy/gradient_norm"] = norm
            if not (loss * norm).isfinite():  # one number to wait for, on an accelerator
                try:
                    finite.check_numbers({**diagnostics, LOSS: loss})
                except NonFiniteError as error:
                    raise _with_sequences(error, policy, params, batch, rows, settings) from None
            with finite.refusals_of_torch():
                optimiser.step()
            project(policy, params)
            for name, value in diagnostics.items():
                total[name] = total.get(name, torch.zeros_like(value)) + value
            steps += 1
    finite.check_tensors(params, "after the update, ")
    return {name: float(value) / steps for name, value in total.items()}


def _with_sequences(
    error: NonFiniteError, policy: RecurrentPolicy, params: Params, batch: Sequences, rows: Tensor, settings: Settings
) -> NonFiniteError:
    """The error with the sequences of a minibatch whose loss alone is not finite."""
    with torch.no_grad():
        broken = [row for row in rows if not ppo_loss(policy, params, batch.take(row[None]), settings)[0].isfinite()]
    error.tasks = sorted(map(int, broken))
    error.data = dict(vars(batch.take(torch.stack(broken) if broken else rows)))
    return error


class RecurrentPPO:
    """A policy with a memory, and all that learning it remembers from one update to the next.

    Args:
        policy: to be trained.
        settings: of PPO.
        run: whose last checkpoint, if there is one, it goes on from; its device is where everything lives, and its
            ranks share the work.
        key: names the stream of the initial parameters.
        told: what the critic is told of a task; None for nothing.
        lessons: a teacher's, for the first iterations.

    Attributes:
        params: the policy's parameters, changed in place by `learn`.
        scale: of the rewards so far.
    """

    def __init__(
        self,
        policy: RecurrentPolicy,
        settings: Settings,
        run: Run,
        key: Key,
        told: ToldTask | None = None,
        lessons: Lessons = NO_LESSONS,
    ) -> None:
        self.policy, self.settings, self.scale, self.ranks = policy, settings, RewardScale(), run.ranks
        self._told, self._lessons = told, lessons
        self.params = {name: value.to(run.device) for name, value in policy.init(key.torch()).items()}
        leaves = [value.requires_grad_() for value in self.params.values()]
        self._optimiser = torch.optim.Adam(leaves, settings.step_size, eps=EPSILON, fused=True)
        restored = run.restore(self.state() | {"optimiser": self._optimiser})
        if restored is not None:
            saved = policy.project({name: value.to(run.device) for name, value in restored[1]["params"].items()})
            with torch.no_grad():
                for name, value in self.params.items():
                    value.copy_(saved[name])
            self.scale = RewardScale(**restored[1]["reward_scale"])
            self._optimiser.load_state_dict(restored[1]["optimiser"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        detached = {name: value.detach() for name, value in self.params.items()}
        return {"params": detached, "optimiser": self._optimiser.state_dict(), "reward_scale": dict(vars(self.scale))}

    def told(self, tasks: Tasks) -> Tensor | None:
        """What the critic is told of tasks, `(T, K)`, if anything."""
        return None if self._told is None else self._told(tasks)

    def learn(self, experience: TrialEpisodes, tasks: Tasks, iteration: int, key: Key) -> dict[str, float]:
        """One update by trials of this policy, with the step size and the entropy bonus of an iteration.

        While a teacher's lessons last, these stay as they are, and the critic is fitted to whole returns.

        Args:
            experience: T x E trials, those of all ranks.
            tasks: theirs, T.
            iteration: counted from 0.
            key: names the stream of the minibatches.

        Returns:
            Diagnostics.

        Raises:
            NonFiniteError: as `update` does; it names the tasks to blame.
        """
        episodes = experience.episodes
        rewards, valid = episodes.rewards.flatten(0, 1).double(), episodes.valid.flatten(0, 1)
        self.scale = self.scale.update(rewards, valid, self.settings.gamma)
        advice = self._lessons(episodes, tasks, iteration, key("teacher"))
        whole = self.settings if advice is None else replace(self.settings, gae_lambda=1.0)
        batch, explained = prepare(experience, whole, self.scale, self.told(tasks), advice)
        now = annealed(self.settings, max(0, iteration - self._lessons.iterations))
        self._optimiser.param_groups[0]["lr"] = now.step_size
        try:
            metrics: dict[str, float] = update(self.policy, self.params, self._optimiser, batch, now, key, self.ranks)
        except NonFiniteError as error:
            replicas = len(valid) // len(tasks)
            blamed = {row % len(valid) // replicas for row in error.tasks}  # a sequence is a chunk of a trial
            raise finite.blame(error, tasks, sorted(blamed)) from None
        return metrics | {
            "value/explained_variance": explained,
            "episodes/steps": int(valid.sum()),
            "episodes/unstable": int(episodes.unstable.sum()),
        }
