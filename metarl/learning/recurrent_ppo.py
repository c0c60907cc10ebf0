"""Proximal policy optimisation on whole trials, for actor-critics with a memory (Schulman et al. 2017).

    minimise  mean_t -min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t) + w (V_t - R_t)^2 / 2 - b H(pi_t),
    rho_t = pi(a_t | h_t) / pi_old(a_t | h_t),   R_t = A_t + V_old_t,

with generalised advantage estimates A_t over the whole trial: they flow across the ends of its episodes,
terminated or truncated, and stop at its end, which is terminal.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.learning.settings import check_range
from metarl.learning.shared_gradient import add_gradients
from metarl.learning.told_task import ToldTask
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.ops import finite, returns
from metarl.ops.reward_scale import RewardScale
from metarl.ops.surrogates import clipped_surrogate
from metarl.ranks import ALONE, Ranks
from metarl.runs.run import Run
from metarl.sampling.trials import TrialEpisodes
from metarl.seeding import Key
from metarl.tasks import Tasks

EPSILON = 1e-5  # of Adam, as in OpenAI's baselines
BY_ROW = ("states", "task")  # of `Sequences`: the fields that have no axis of steps
Set = TypeVar("Set", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Settings of PPO on whole trials. Where no source is named, the value comes from short runs on bandits."""

    gamma: float = 0.99
    """Discount (Duan et al. 2016)."""
    gae_lambda: float = 0.3
    """Lambda of the generalised advantage estimates (Duan et al. 2016)."""
    clip: float = 0.1
    """How far the probability ratio counts from 1 (pytorch_rl2 and VariBAD: 0.1)."""
    epochs: int = 4
    """Passes over the data of an update (pytorch_rl2: 8; VariBAD: 2)."""
    minibatches: int = 10
    """Gradient steps a pass."""
    step_size: float = 2e-3
    """Of Adam (pytorch_rl2: 2e-4; VariBAD: 7e-4)."""
    halve_every: int = 100
    """Iterations in which the step size and the entropy bonus halve, smoothly; 0 keeps them."""
    value_weight: float = 0.5
    """Of the critic's squared error, w."""
    entropy_weight: float = 0.0
    """Of the entropy bonus, b (pytorch_rl2 and VariBAD: 0.01)."""
    max_gradient_norm: float = 0.5
    """Gradients are scaled down to this norm (VariBAD: 0.5)."""
    normalise_advantages: bool = True
    """Give the advantages of an update zero mean and unit deviation (pytorch_rl2: no)."""
    normalise_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return (VariBAD: yes)."""
    chunk: int = 0
    """Steps gradients flow back (truncated back-propagation through time); 0 for the whole trial."""

    def __post_init__(self) -> None:
        check_range(self, "epochs", "minibatches", least=1)
        check_range(self, "clip", "step_size", "max_gradient_norm", above=0)
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "halve_every", "chunk", "value_weight", "entropy_weight", least=0)


@dataclass(frozen=True)
class Sequences:
    """S sequences of L steps: whole trials, or chunks of them."""

    obs: Tensor  # (L, S, D) float32
    actions: Tensor  # (L, S) int64, or (L, S, A) float32
    log_prob: Tensor  # (L, S) float32, when acting
    advantages: Tensor  # (L, S) float32, 0 where invalid
    targets: Tensor  # (L, S) float32, of the critic
    valid: Tensor  # (L, S) float32, 1 for steps that were really taken
    states: Tensor  # (S, ...) float32, the memory's before the first step
    task: Tensor | None = None  # (S, K) float32, what the critic is told

    def __len__(self) -> int:
        return self.states.shape[0]

    def take(self, rows: Tensor) -> Sequences:
        """Some of the sequences."""
        fields = {name: value.index_select(1, rows) for name, value in vars(self).items() if name not in BY_ROW}
        return Sequences(**fields, states=self.states[rows], task=None if self.task is None else self.task[rows])


def prepare(
    experience: TrialEpisodes, settings: Settings, scale: RewardScale, task: Tensor | None = None
) -> tuple[Sequences, float]:
    """What PPO learns from: advantages over whole trials, cut into chunks. Also the critic's explained variance.

    Args:
        experience: T x E trials.
        settings: of PPO.
        scale: of the rewards.
        task: what the critic was told of each task, `(T, K)`.
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
        """`(N, H, ...)` to `(L, C * N, ...)`, padded with zeros at the end."""
        x = x.transpose(0, 1).to(device)
        missing = -x.shape[0] % length
        if missing:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        return x.reshape(-1, length, *x.shape[1:]).transpose(0, 1).flatten(1, 2)

    sequences = Sequences(
        obs=cut(episodes.obs.flatten(0, 1)),
        actions=cut(episodes.actions.flatten(0, 1)),
        log_prob=cut(experience.log_prob.T),
        advantages=cut(advantages.float()),
        targets=cut(targets.float()),
        valid=cut(valid.float()),
        states=(states := experience.states.flatten(0, 1)),
        task=None if task is None else _by_sequence(task.to(device), len(valid), len(states)),
    )
    return sequences, explained


def _by_sequence(task: Tensor, trials: int, sequences: int) -> Tensor:
    """`(T, K)` for every chunk of every trial of each task, `(S, K)`."""
    return task.repeat_interleave(trials // len(task), 0).repeat(sequences // trials, 1)


def ppo_loss(
    policy: RecurrentPolicy, params: Params, batch: Sequences, settings: Settings, count: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, a mean over valid steps, and its diagnostics.

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

    surrogate = mean(clipped_surrogate(log_prob, batch.log_prob, batch.advantages, settings.clip))
    value_loss = 0.5 * mean((decision.value - batch.targets) ** 2)
    entropy = mean(decision.distribution.entropy())
    loss = -surrogate + settings.value_weight * value_loss - settings.entropy_weight * entropy
    with torch.no_grad():
        log_ratio = log_prob - batch.log_prob
        diagnostics = {
            "policy/surrogate": surrogate.detach(),
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

    Ranks, which all have the whole batch, share the sequences of every minibatch and take the same steps.

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
            loss, diagnostics = ppo_loss(policy, params, part, settings, count)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            diagnostics = add_gradients(ranks, leaves, diagnostics | {"the loss": loss.detach()})
            loss = diagnostics.pop("the loss")
            norm = torch.nn.utils.clip_grad_norm_(leaves, settings.max_gradient_norm)
            diagnostics["policy/gradient_norm"] = norm
            if not (loss * norm).isfinite():  # one number to wait for, on an accelerator
                try:
                    finite.check_numbers({**diagnostics, "the loss": loss})
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


def shared(batch: Sequences, rows: Tensor, ranks: Ranks) -> tuple[Sequences, Tensor | None]:
    """This rank's part of a minibatch, and the valid steps of all of it; in one process the whole, and None.

    Where there are more ranks than sequences, the last of them work on one that counts for nothing.
    """
    if ranks.size == 1:
        return batch.take(rows), None
    part = rows.tensor_split(ranks.size)[ranks.rank]
    own = batch.take(part if len(part) else rows[:1])
    if not len(part):
        own = replace(own, valid=torch.zeros_like(own.valid))
    return own, batch.valid.index_select(1, rows).sum().clamp(min=1)


def _with_sequences(
    error: NonFiniteError, policy: RecurrentPolicy, params: Params, batch: Sequences, rows: Tensor, settings: Settings
) -> NonFiniteError:
    """The error with the sequences of a minibatch whose loss alone is not finite."""
    with torch.no_grad():
        broken = [row for row in rows if not ppo_loss(policy, params, batch.take(row[None]), settings)[0].isfinite()]
    error.tasks = sorted(map(int, broken))
    error.data = dict(vars(batch.take(torch.stack(broken) if broken else rows)))
    return error


def annealed(settings: Set, iteration: int) -> Set:
    """The settings with the step size and the entropy bonus of an iteration."""
    left = 0.5 ** (iteration / settings.halve_every) if settings.halve_every else 1.0
    left = max(left, sys.float_info.min)  # after a thousand halvings it would be 0, which is no step size
    return replace(settings, step_size=settings.step_size * left, entropy_weight=settings.entropy_weight * left)


class RecurrentPPO:
    """A policy with a memory, and all that learning it remembers from one update to the next.

    Args:
        policy: to be trained.
        settings: of PPO.
        run: whose last checkpoint, if there is one, it goes on from; its device is where everything lives, and its
            ranks share the work.
        key: names the stream of the initial parameters.
        told: what the critic is told of a task; None for nothing.

    Attributes:
        params: the policy's parameters, changed in place by `learn`.
        scale: of the rewards so far.
    """

    def __init__(
        self, policy: RecurrentPolicy, settings: Settings, run: Run, key: Key, told: ToldTask | None = None
    ) -> None:
        self.policy, self.settings, self.scale, self.ranks = policy, settings, RewardScale(), run.ranks
        self._told = told
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
        batch, explained = prepare(experience, self.settings, self.scale, self.told(tasks))
        now = annealed(self.settings, iteration)
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
