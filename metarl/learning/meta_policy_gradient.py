"""Learners of an initialisation that one policy gradient adapts: their settings, and their data.

What MAML-TRPO and ProMP share; they differ in how the shared parameters move.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.ambient import plain_torch
from metarl.errors import NonFiniteError, UserError
from metarl.learning.brought_network import check_adapts, check_same, remember
from metarl.learning.footprint import NUMBER, Footprint, dense
from metarl.learning.gradient_adaptation import VALIDATION, Adapting, validation_metrics
from metarl.learning.loading import load_params
from metarl.learning.meta_batch import MetaBatch, adapt_to_tasks
from metarl.learning.settings import check_range
from metarl.meta import inner
from metarl.meta.shards import Split
from metarl.naming import is_name
from metarl.nets.module import make_network
from metarl.nets.params import Params
from metarl.nets.policies import Policy, make_policy, mlp_policy
from metarl.ranks import ALONE, Ranks
from metarl.runs.run import Run
from metarl.sampling.blocks import Blocks
from metarl.sampling.episodes import episode_bytes, flat_size
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

MLP = "mlp"  # the network that is ours


@dataclass(frozen=True)
class Settings:
    """Settings of the tasks, the inner loop and the policy.

    Where no source is named, the value was chosen on validation tasks.
    """

    decide_nothing: ClassVar[tuple[str, ...]] = ("threads",)  # a run may go on with more or fewer

    iterations: int = 40
    """Meta-iterations (cbfinn/maml_rl: 100 on 2D navigation, else 800, of which it tests the 100th to 475th; ProMP:
    1,000)."""
    tasks: int = 20
    """Tasks a meta-batch (cbfinn/maml_rl: tested with 20 on 2D navigation, where its script has 40; elsewhere 40;
    ProMP: 40)."""
    episodes: int = 20
    """Episodes a task, for the support set and again for the query set (cbfinn/maml_rl: 20; the half-cheetah that it
    tests at wanted speeds: 10; ProMP: 20)."""
    inner_steps: int = 1
    """Policy-gradient steps of the inner loop during training (Finn et al. 2017 and ProMP: 1)."""
    inner_step_size: float = 0.1
    """Step size alpha, for actions in units of their bound (Finn et al. 2017: 0.1, on 2D navigation 0.5). ProMP's 0.1
    is for actions in tenths of the bound: here that is 0.001 for the last layer, 0.1 for the others and log_std. How
    far a step goes is a matter of alpha / std^2 (results/maml-trpo-grid; MAML-TRPO logs policy/adaptation_kl)."""
    order: Literal[1, 2] = 2
    """2 differentiates through the adaptation, 1 ignores its curvature."""
    network: str = "mlp"
    """The policy's network: mlp, of the layers that follow, or in their place your own as mypackage.module:Name; called
    with `inputs` and `outputs`, it gives a torch.nn.Module (see `metarl.nets.module`)."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of the policy's hidden layers (ProMP: 64 64; Finn et al. 2017: 100 100)."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers (ProMP: tanh; Finn et al. 2017: relu)."""
    init_std: float = 1.0
    """Initial standard deviation of the actions, in units of their bound (Finn et al. 2017: 1; ProMP: 0.1)."""
    min_std: float = 0.45
    """Least standard deviation, to which every step, inner or outer, is put back.

    A policy gradient grows with 1 / std, so a fixed step overshoots once it is small.
    """
    gamma: float = 0.99
    """Discount (Finn et al. 2017 and ProMP: 0.99)."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantage estimates (Finn et al. 2017 and ProMP: 1)."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 40
    """Tasks of each validation."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    threads: int = 2
    """Threads of the physics and of the update; they change how long it takes, not what comes out."""

    def __post_init__(self) -> None:
        check_range(self, "iterations", "tasks", "episodes", "inner_steps", "hidden", least=1)
        check_range(self, "threads", "checkpoint_every", least=1)
        check_range(self, "inner_step_size", "init_std", "min_std", above=0)
        if self.init_std < self.min_std:
            raise UserError(f"--init-std is {self.init_std}; it must be at least --min-std, {self.min_std}")
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "validate_every", least=0)
        if self.network != MLP and not is_name(self.network):
            raise UserError(f"--network is {self.network!r}; it is mlp, or your own as mypackage.module:Name")

    def policy(self, family: TaskFamily, network: Any = None) -> Policy:
        """The policy for a family's spaces.

        Args:
            family: the family.
            network: one's own in Python (`metarl.nets.module.make_network`), in place of that of the config.

        Raises:
            UserError: the spaces are of another kind, or the network cannot be used.
        """
        spaces, stds = (family.observation_space, family.action_space), (self.init_std, self.min_std)
        if network is None and self.network == MLP:
            return mlp_policy(*spaces, self.hidden, self.activation, *stds)
        if network is not None and self.network != MLP:
            raise UserError(f"--network is {self.network} and network=... is given too: leave one out")
        flag, own = ("--network", self.network) if network is None else ("network=", network)
        policy = make_policy(*spaces, lambda inputs, outputs: make_network(own, inputs, outputs, flag), *stds)
        check_adapts(policy, policy.network.sizes[0], flag)
        return policy

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: a policy a task and iterate, and the episodes that it learns from."""
        own = dense((flat_size(family.observation_space), *self.hidden, flat_size(family.action_space)))
        parameters = own if self.network == MLP else 0
        together = (self.inner_steps + 1) * self.tasks
        return Footprint(parameters, NUMBER * together * parameters + together * self.episodes * episode_bytes(family))

    def rule(self, policy: Policy) -> inner.Rule:
        """The inner loop."""
        return inner.Rule(self.inner_step_size, self.inner_steps, order=self.order, project=policy.project)

    def adapting(self, policy: Policy, params: Params, family: TaskFamily) -> Adapting:
        """The agent, to be put on new tasks."""
        return Adapting(policy, params, family, self.inner_step_size, self.gamma, self.gae_lambda, self.threads)


class MetaBatches:
    """Training tasks to adapt to, fresh ones an iteration.

    Args:
        settings: how many, and how.
        family: whose tasks they are.
        policy: that acts and adapts.
        key: names the streams.
        ranks: the processes that share out the tasks. All draw all of them, so that each task and its noise are the
            same whoever has it.
        device: where the update computes.
    """

    def __init__(
        self,
        settings: Settings,
        family: TaskFamily,
        policy: Policy,
        key: Key,
        ranks: Ranks = ALONE,
        device: str = "cpu",
    ) -> None:
        self._settings, self._family, self._policy, self._key = settings, family, policy, key
        self._tasks = family.sample(settings.tasks, key("tasks").numpy())
        self._split = Split(settings.tasks, ranks, device)
        self._env = Blocks(family, self._tasks[self._split.own], settings.episodes, settings.threads)

    def gather(self, params: Params, iteration: int) -> MetaBatch:
        """What adapting to this process's share of an iteration's tasks leaves behind."""
        settings, key = self._settings, self._key("iteration", iteration)
        self._tasks = self._family.sample(settings.tasks, key("tasks").numpy())
        rule = settings.rule(self._policy)

        def adapt() -> MetaBatch:
            self._env.assign(self._tasks[self._split.own])
            return adapt_to_tasks(self._env, self._policy, params, rule, key, settings.gamma, settings.gae_lambda)

        return replace(self._split.together(adapt), shared=self._split)

    @contextmanager
    def blamed(self, data: MetaBatch) -> Iterator[None]:
        """Add the data of the tasks concerned to a NonFiniteError of the update."""
        try:
            yield
        except NonFiniteError as error:
            raise data.blame(error, self._tasks) from None

    def validation(self, params: Params, iteration: int, seed: int) -> dict[str, float]:
        """Mean returns on validation tasks, where they are due after this iteration."""
        settings = self._settings
        if not settings.validate_every or (iteration + 1) % settings.validate_every:
            return {}
        tasks = self._family.fixed("validation", settings.validation_tasks)
        agent, ranks = settings.adapting(self._policy, params, self._family), self._split.ranks

        def judge(some: Tasks) -> NDArray[np.float64]:
            return agent.curve(some, VALIDATION, seed).values

        if len(tasks) < ranks.size:
            return validation_metrics(ranks.first(lambda: judge(tasks)))
        parts = ranks.gather(ranks.together(lambda: judge(tasks[ranks.share(len(tasks))])))
        return validation_metrics(np.concatenate(parts))


def begin(settings: Settings, family: TaskFamily, run: Run, network: Any) -> Policy:
    """The policy to train in a run, which remembers a network that was given in Python.

    Raises:
        UserError: the network cannot be used, or is not that of the run.
    """
    policy = settings.policy(family, network)
    check_same(run, network, policy)
    remember(run, network, policy)
    return policy


@plain_torch()
def load(run: Run, source: TaskFamily, network: Any = None) -> Adapting:
    """The agent of a run, from its last checkpoint.

    Args:
        run: whose config is one of `Settings`, its checkpoint's parameters under `params`.
        source: the family that it was trained on.
        network: that was given in training.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    settings: Settings = run.config
    policy = settings.policy(source, network)
    check_same(run, network, policy)
    return settings.adapting(policy, load_params(run, policy, source.name), source)
