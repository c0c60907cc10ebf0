"""PEARL (Rakelly et al. 2019): off-policy meta-reinforcement learning that infers the task.

An encoder turns transitions of a task, in any order, into a Gaussian over a latent vector z
(`metarl.nets.context_encoder`); policy, Q and V are told z, and are trained by soft actor-critic on what all training
tasks have ever brought (`metarl.learning.soft_actor_critic`, version 1 as in the paper: twin Q, a V network with a
slow copy). So every step in an environment serves many gradient steps. An iteration:

1. On some of a fixed set of training tasks, collect episodes with z from the prior; they are the task's context from
   now on (`metarl.learning.replay`). Then episodes with z from the posterior of that context.
2. Many gradient steps, each on a few tasks: context drawn from their latest, transitions from all that is kept.

Evaluation (`metarl.learning.latent_adaptation`): an episode with z from the prior, then after 1, 2, ... of them with z
from the posterior; every episode counts as consumed.

Sources: the paper and katerakelly/oyster. Deviations: all episodes of a task are collected at once, so that those of
the posterior know those of the prior and not one another; the posterior is used after the first episode (there after
two); a context holds no next states, so where dynamics vary it sees them by the rewards alone; the last transition
before a time limit is not learned from; a ring holds the last `capacity` transitions a task (there a million); weights
begin by Glorot's rule, the policy's last layer a hundredth of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.learning.footprint import NUMBER, Footprint, dense
from metarl.learning.latent_adaptation import LatentAgent
from metarl.learning.latent_collection import collect
from metarl.learning.loading import load_params
from metarl.learning.replay import Replay, replay_bytes
from metarl.learning.settings import check_range
from metarl.learning.soft_actor_critic import SoftActorCritic, SoftSettings
from metarl.nets.latent_actor_critic import LatentActorCritic
from metarl.nets.params import on
from metarl.parallel import intra_op_threads
from metarl.runs.run import Run
from metarl.sampling.episodes import flat_size
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(SoftSettings):
    """Settings of PEARL. Where no source is named, the value comes from short runs on 2D navigation."""

    iterations: int = 100
    """Rounds of collecting and learning (Rakelly et al. 2019: 500)."""
    tasks: int = 40
    """Training tasks, drawn once (Rakelly et al. 2019: 100 on half-cheetah velocity, 150 on ant goal)."""
    initial_episodes: int = 4
    """Episodes on each before the first iteration, z from the prior (there 2,000 steps: 10)."""
    collect_tasks: int = 5
    """Tasks, drawn anew each iteration, on which episodes are collected; all where there are fewer (there 5)."""
    prior_episodes: int = 2
    """Episodes on each of them with z from the prior; the task's new context (there 400 steps: 2)."""
    posterior_episodes: int = 2
    """Episodes on each of them with z from the posterior of those (there 600 steps: 3)."""
    posterior_context: bool = False
    """Whether the posterior's episodes are context too (there: where rewards are sparse)."""
    capacity: int = 10_000
    """Transitions a task that are kept. Memory and checkpoint grow with --tasks times this, to 2 GiB at most."""
    latent: int = 5
    """Numbers of z (Rakelly et al. 2019: 5)."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of policy, Q and V (there 300 300 300)."""
    encoder_hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the encoder (there 200 200 200)."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 40
    """Tasks of each validation, a trial of three episodes each."""
    checkpoint_every: int = 10
    """Iterations between checkpoints, which hold all that is kept of the tasks."""
    threads: int = 1
    """Intra-op threads, of no more cores than are idle; results repeat for a fixed number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = ("iterations", "tasks", "initial_episodes", "collect_tasks", "prior_episodes", "posterior_episodes")
        sizes = ("capacity", "latent", "hidden", "encoder_hidden")
        check_range(self, *whole, *sizes, "validation_tasks", "checkpoint_every", "threads", least=1)
        check_range(self, "validate_every", least=0)

    def replay(self, family: TaskFamily) -> Replay:
        """Empty rings.

        Raises:
            UserError: a visit to a task would not fit into its ring, or all of them into a checkpoint.
        """
        visit = max(self.initial_episodes, self.prior_episodes + self.posterior_episodes) * family.horizon
        if visit > self.capacity or family.horizon < 2:
            raise UserError(
                f"--capacity is {self.capacity}; it must be at least {visit}, the steps of a visit to a task"
                if family.horizon > 1
                else f"pearl learns from what steps lead to, and episodes of {family.name} have one step"
            )
        networks = self.networks(family)
        return Replay(self.tasks, self.capacity, networks.observation, networks.action)

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: all networks, and full rings of transitions."""
        seen, acted = flat_size(family.observation_space), flat_size(family.action_space)
        parameters = 2 * dense((seen + acted + self.latent, *self.hidden, 1)) + 2 * dense((seen, *self.hidden, 1))
        parameters += dense((seen, *self.hidden, acted)) + dense((seen + acted, *self.encoder_hidden, self.latent))
        step = NUMBER * self.meta_batch * (self.batch * self.hidden[0] + self.context * self.encoder_hidden[0])
        return Footprint(parameters, replay_bytes(self.tasks, self.capacity, seen, acted) + step)

    def networks(self, family: TaskFamily) -> LatentActorCritic:
        """The networks for a family.

        Raises:
            UserError: its actions are none of a Box, or its observations are not flat.
        """
        seen, acted = family.observation_space, family.action_space
        if not isinstance(acted, Box):
            raise UserError(
                f"pearl acts in a Box, and actions of {family.name} are {acted}: use rl2 or maml-trpo there"
            )
        if not isinstance(seen, Box) or len(seen.shape) != 1:
            raise UserError(f"pearl sees a flat Box, and observations of {family.name} are {seen}")
        return LatentActorCritic(seen.shape[0], acted.shape[0], self.latent, self.hidden, self.encoder_hidden)


_PAPER = Config(
    gamma=0.99,
    reward_scale=5.0,
    step_size=3e-4,
    target_rate=0.005,
    iterations=500,
    tasks=100,
    initial_episodes=10,
    posterior_episodes=3,
    gradient_steps=2000,
    meta_batch=16,
    batch=256,
    context=100,
    hidden=(300, 300, 300),
    encoder_hidden=(200, 200, 200),
)
DEFAULTS = {
    # Points in the plane, in minutes.
    "navigation": Config(),
    # The published collection with smaller networks and a tenth of the gradient steps: for hours on a CPU.
    "mujoco": replace(_PAPER, gradient_steps=200, batch=128, hidden=(128, 128), encoder_hidden=(64, 64)),
    # Half-cheetah velocity as published (oyster's cheetah-vel.json): for a GPU. Others: see the options' help.
    "paper": _PAPER,
}


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    networks, key = config.networks(source), Key(run.seed)("pearl")
    replay = config.replay(source)
    learner = SoftActorCritic(networks, on(networks.init(key("init").torch()), run.device), config)
    agent = LatentAgent(networks, learner.params, source, config.threads)
    tasks = source.sample(config.tasks, key("tasks").numpy())

    def state() -> dict[str, Any]:
        return {**learner.state(), "replay": replay.state()}

    if (restored := run.restore({**learner.like(), "replay": replay.like()})) is not None:
        learner.load(restored[1])
        replay.load(restored[1]["replay"])
    play = partial(collect, agent, replay, tasks, posterior_context=config.posterior_context)
    loop = run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state)
    with loop, intra_op_threads(config.threads):
        for iteration in loop:
            at, started = key("iteration", iteration), time.perf_counter()
            begun = {"episodes/steps": 0.0, "episodes/unstable": 0.0}
            if not iteration:
                begun = play(np.arange(config.tasks), (config.initial_episodes, 0), at("initial"))
            rows = at("visited").numpy().permutation(config.tasks)[: config.collect_tasks]
            metrics = play(rows, (config.prior_episodes, config.posterior_episodes), at("collect"))
            metrics |= {name: metrics[name] + begun[name] for name in ("episodes/steps", "episodes/unstable")}
            sampled = time.perf_counter()
            metrics |= learner.learn(replay, at("learn").numpy())
            updated = time.perf_counter()
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                metrics |= agent.validation_metrics(config.validation_tasks, run.seed)
            loop.log(metrics, {"sampling_s": sampled - started, "update_s": updated - sampled})


@plain_torch()
def load(run: Run, source: TaskFamily) -> LatentAgent:
    """The agent of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    networks = run.config.networks(source)
    return LatentAgent(networks, load_params(run, networks, source.name), source, run.config.threads)
