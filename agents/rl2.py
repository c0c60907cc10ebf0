"""RL² (Duan et al. 2016; Wang et al. 2016): an agent whose memory is the learning algorithm.

A trial is several episodes of one unknown task in a row. The agent sees, besides the observation, its
previous action, the previous reward and whether an episode has just ended; its memory lasts
from one episode of the trial to the next and is empty at the start of a trial. Ordinary reinforcement
learning on whole trials then trains it to explore, to remember and to exploit. Here that is PPO
(`metarl.learning.recurrent_ppo`).

Evaluation: nothing but acting. The score after k bits of adaptation is the return of episode k + 1 of a
trial, for which k episodes were consumed; a bandit's trial is one episode and has one score.

Deviations: PPO in place of the paper's TRPO, as in its public reproductions; the previous reward enters
as it is, whatever `normalise_rewards` does to the rewards learned from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from metarl.ambient import plain_torch
from metarl.envs.wrappers.trials import Trials, trial_episodes
from metarl.envs.wrappers.values import ValueTrials
from metarl.errors import UserError
from metarl.learning.footprint import NUMBER, Footprint
from metarl.learning.loading import load_params
from metarl.learning.memory_adaptation import MemoryAgent, return_metrics
from metarl.learning.memory_policy import PolicySettings
from metarl.learning.recurrent_ppo import RecurrentPPO
from metarl.learning.recurrent_settings import Settings
from metarl.learning.settings import check_range
from metarl.learning.teacher import LessonSettings
from metarl.learning.told_task import ToldTask, told_numbers
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.parallel import intra_op_threads
from metarl.registry import make_untrained
from metarl.runs.run import Run
from metarl.sampling.blocks import Blocks
from metarl.sampling.episodes import episode_bytes, flat_size
from metarl.sampling.trials import run_trials
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(PolicySettings, Settings, LessonSettings):
    """Settings of RL². Where no source is named, the value comes from short runs on Bernoulli bandits."""

    iterations: int = 350
    """Updates."""
    trials: int = 2500
    """Trials an update, each of a fresh task (25,000 steps of the default bandit; Duan et al. 2016: 250,000,
    pytorch_rl2: 240,000)."""
    trial_episodes: int = 0
    """Episodes a trial; 0 takes the family's own number, or 2 where it has none (VariBAD: 2 on MuJoCo)."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 1000
    """Tasks of each validation, a trial each."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        for settings in (PolicySettings, Settings, LessonSettings):
            settings.__post_init__(self)
        check_range(self, "iterations", "trials", "validation_tasks", "checkpoint_every", least=1)
        check_range(self, "trial_episodes", "validate_every", least=0)
        if self.minibatches > self.trials:
            raise UserError(f"--minibatches is {self.minibatches}; it must be at most --trials, {self.trials}")

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: the memory's weights, and its features at every step of an update."""
        trials = Trials(family=family, episodes=self.trial_episodes)
        parameters = self.least_parameters(flat_size(family.action_space))
        features = NUMBER * self.trials * trials.horizon * self.hidden // self.minibatches
        return Footprint(parameters, features + self.trials * episode_bytes(trials))


SHARED = "trials"
_PAPER = Config(
    iterations=1000,
    hidden=256,
    layer_norm=True,
    epochs=8,
    step_size=2e-4,
    halve_every=0,
    entropy_weight=0.01,
    normalise_advantages=False,
)
DEFAULTS = {
    # n = 10 pulls.
    "bandit": Config(),
    # The same problem with a causal transformer of 64: fewer steps to as much (results/rl2/README.md).
    "transformer": Config(
        iterations=250, memory="transformer", hidden=64, step_size=1e-3, halve_every=60, entropy_weight=0.01
    ),
    # For 2 cores and half an hour: trials of 100 steps, 25,000 steps an update. On a CPU the LSTM is the faster cell.
    "long": Config(iterations=2000, trials=250, memory="lstm", halve_every=400, normalise_rewards=True),
    # 10 episodes of 10 steps: 240,000 steps an update, after pytorch_rl2, which has minibatches of 480 trials.
    "mdp": replace(_PAPER, trials=2400, minibatches=24, normalise_rewards=True, normalise_advantages=True),
    # Minutes on a CPU; no embedding, no hidden layers.
    "navigation": Config(
        iterations=200,
        trials=40,
        trial_episodes=4,
        memory="lstm",
        init_std=0.5,
        gamma=0.97,
        gae_lambda=0.9,
        minibatches=4,
        step_size=1e-3,
        halve_every=60,
        normalise_rewards=True,
    ),
    # VariBAD's RL² baseline. There 16 workers take 200 to 800 steps each before an update, for 100 million steps in
    # all, here 40 whole trials, 16 million; there observation, action and reward are embedded apart (32, 16, 16, relu),
    # and the critic has a clipped Huber loss.
    "mujoco": Config(
        iterations=1000,
        trials=40,
        trial_episodes=2,
        embedding=64,
        head=(128,),
        gamma=0.97,
        gae_lambda=0.9,
        epochs=2,
        minibatches=4,
        step_size=7e-4,
        halve_every=0,
        entropy_weight=0.01,
        normalise_rewards=True,
    ),
    # Duan et al. 2016 (TRPO, up to 1,000 updates, from memory) by way of pytorch_rl2: 240,000 steps. There are
    # minibatches of 480, a memory for the critic alone, a Huber loss, weight decay .01, gradients unclipped.
    "paper": replace(_PAPER, trials=24_000, minibatches=24),
}


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    trials, key = _trials(config, source), Key(run.seed)("rl2")
    own = run.ranks.share(config.trials)
    policy = _policy(config, trials)
    told = ToldTask(source, key("told")) if policy.told else None
    lessons = config.lessons(make_untrained, source, trials.episodes, trial_episodes(source))
    learner = RecurrentPPO(policy, config, run, key("init"), told, lessons)
    env = Blocks(trials, trials.sample(config.trials, key("tasks").numpy())[own], 1, config.threads)
    play = partial(run_trials, env, policy, inner=trials.episodes, chunk=config.chunk)
    loop = run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=learner.state)
    with loop, intra_op_threads(1):
        for iteration in loop:
            at = key("iteration", iteration)
            started = time.perf_counter()
            tasks = trials.sample(config.trials, at("tasks").numpy())
            env.assign(tasks[own])
            act = partial(play, learner.params, at, task=learner.told(tasks[own]))
            experience = run.ranks.together(act, tasks=config.trials).gathered(run.ranks, policy)
            sampled = time.perf_counter()
            metrics = learner.learn(experience, tasks, iteration, at)
            updated = time.perf_counter()
            metrics |= return_metrics(experience.returns().mean((0, 1)))
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                agent = _agent(config, source, policy, learner.params)
                metrics |= agent.validation_metrics(config.validation_tasks, run.seed)
            loop.log(metrics, {"sampling_s": sampled - started, "update_s": updated - sampled})
    env.close()


@plain_torch()
def load(run: Run, source: TaskFamily) -> MemoryAgent:
    """The agent of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    policy = _policy(run.config, _trials(run.config, source))
    return _agent(run.config, source, policy, load_params(run, policy, source.name))


def _trials(config: Config, family: TaskFamily) -> Trials | ValueTrials:
    trials = Trials(family=family, episodes=config.trial_episodes)
    return ValueTrials(family=trials) if config.inputs == "values" else trials


def _policy(config: Config, trials: Trials | ValueTrials) -> RecurrentPolicy:
    padded = trials.horizon + -trials.horizon % (config.chunk or trials.horizon)
    told = told_numbers(trials.family, config.critic)
    seen = flat_size(trials.observation_space) - flat_size(trials.action_space) - 2
    return config.policy(trials.observation_space, trials.action_space, padded, told, seen)


def _agent(config: Config, family: TaskFamily, policy: RecurrentPolicy, params: Params) -> MemoryAgent:
    trials = _trials(config, family)
    return MemoryAgent(policy, params, family, trials, trials.episodes, config.threads)
