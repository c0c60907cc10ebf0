"""VariBAD (Zintgraf et al. 2020): an agent that acts on how sure it is of the task.

A recurrent encoder turns what has been seen of a trial into a belief, a normal distribution over a few numbers m that
describe the task; a policy acts on the state and the belief's mean and log-variance. Policy and belief are learned
apart from the same trials:

    policy:  PPO on whole trials (`metarl.learning.recurrent_ppo`); its gradient ends at the belief
    belief:  the evidence lower bound: m drawn from the belief at any moment must explain the rewards (and, if asked,
             the transitions) of the whole trial, and the belief must stay near that of the moment before
             (`metarl.learning.belief_bound`, which says what is summed and what is averaged)

Trials, evaluation and curves are RL²'s: the score after k bits of adaptation is the return of episode k + 1.

Source: the paper and lmzintgraf/varibad. Deviations: whole trials an update, as many as fit, where 16 workers take 200
to 800 steps each; what is kept for learning the belief is hundreds of trials, few of each update, and not the last
10,000, so that a checkpoint stays small; the encoder sees the first state, and whether an episode has ended; the
decoder of rewards sees state, action and next state without layers of their own before (there the next state alone),
and squared errors are its loss everywhere (on the grid there: cross-entropies, a head a cell, and A2C for the policy);
running moments count an update's steps once it is over, so that the probabilities learned from are those acted with;
rewards are divided by the running deviation of the return and not cut to +-10; the critic's loss is a square, and the
end of a trial is terminal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from metarl.ambient import plain_torch
from metarl.envs.wrappers.trials import Trials
from metarl.errors import UserError
from metarl.learning.belief_learner import BeliefLearner
from metarl.learning.belief_settings import BeliefSettings
from metarl.learning.footprint import NUMBER, Footprint, dense
from metarl.learning.loading import load_params
from metarl.learning.memory_adaptation import MemoryAgent, return_metrics
from metarl.learning.recurrent_ppo import RecurrentPPO
from metarl.learning.recurrent_settings import Settings
from metarl.learning.settings import check_range
from metarl.learning.told_task import ToldTask, told_numbers
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.parallel import intra_op_threads
from metarl.runs.run import Run
from metarl.sampling.blocks import Blocks
from metarl.sampling.episodes import episode_bytes, flat_size
from metarl.sampling.trials import run_trials
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(BeliefSettings, Settings):
    """Settings of VariBAD. Where no source is named, the value comes from short runs on grid navigation."""

    iterations: int = 250
    """Updates."""
    trials: int = 200
    """Trials an update, each of a fresh task (12,000 steps of the grid; VariBAD: 960)."""
    trial_episodes: int = 0
    """Episodes a trial; 0 takes the family's own number, or 2 where it has none (VariBAD: 2 on MuJoCo)."""
    gamma: float = 0.95
    """Discount (VariBAD's grid; MuJoCo: 0.97)."""
    gae_lambda: float = 0.95
    """Lambda of the generalised advantage estimates (VariBAD's grid; MuJoCo: 0.9)."""
    minibatches: int = 4
    """Gradient steps a pass (MuJoCo: 4)."""
    step_size: float = 2e-3
    """Of Adam, for the policy (VariBAD: 7e-4)."""
    halve_every: int = 0
    """Iterations in which the step size and the entropy bonus of the policy halve, smoothly; 0 keeps them."""
    entropy_weight: float = 0.02
    """Of the entropy bonus (VariBAD's grid, with A2C: 0.1; MuJoCo: 0.01)."""
    normalise_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return (MuJoCo: yes; VariBAD's grid: no)."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 1000
    """Tasks of each validation, a trial each."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        BeliefSettings.__post_init__(self)
        Settings.__post_init__(self)
        check_range(self, "iterations", "trials", "validation_tasks", "checkpoint_every", least=1)
        check_range(self, "trial_episodes", "validate_every", least=0)
        if self.minibatches > self.trials:
            raise UserError(f"--minibatches is {self.minibatches}; it must be at most --trials, {self.trials}")

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: the weights, the buffer, and an encoder's features at every step."""
        trials = Trials(family=family, episodes=self.trial_episodes)
        inputs = flat_size(trials.observation_space)
        actor = dense((self.policy_embedding, *self.head, flat_size(family.action_space)))
        parameters = 3 * self.hidden * self.hidden + actor + dense((self.latent, *self.reward_decoder, 1))
        features = self.trials * self.hidden + self.buffer * inputs
        data = NUMBER * trials.horizon * features + self.trials * episode_bytes(trials)
        return Footprint(parameters, data)


SHARED = "trials"
_MUJOCO = Config(
    hidden=128,
    action_embedding=16,
    reward_embedding=16,
    policy_embedding=64,
    head=(128, 128),
    belief_trials=10,
    moments=50,
    decoded=50,
    cut=50,
    reward_decoder=(64, 32),
    trials=40,
    trial_episodes=2,
    gamma=0.97,
    gae_lambda=0.9,
    epochs=2,
    step_size=7e-4,
    entropy_weight=0.01,
)
DEFAULTS = {
    # Trials of 4 episodes of 15 steps, and other choices among few.
    "grid": Config(),
    # Continuous moves; sparse rewards, as on VariBAD's semicircle, which has episodes of 100 steps, 3 a trial.
    "navigation": replace(
        _MUJOCO,
        iterations=400,
        trial_episodes=3,
        belief_updates=5,
        gamma=0.99,
        entropy_weight=0.001,
        kl_weight=1.0,
        buffer=100,
        buffer_added=5,
    ),
    # VariBAD's half-cheetah: there 100 million steps, here 16 million; checkpoints of 10 MB.
    "mujoco": replace(_MUJOCO, iterations=1000, belief_updates=5, buffer=200, buffer_added=10),
    # The published steps, and as many trials kept: checkpoints of 400 MB on a half-cheetah.
    "paper": replace(_MUJOCO, iterations=6250, belief_updates=5, buffer=10_000, buffer_added=40),
}
PURPOSES = {"grid": "a choice among few: trials of up to 200 steps"}


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    trials, key = Trials(family=source, episodes=config.trial_episodes), Key(run.seed)("varibad")
    own = run.ranks.share(config.trials)
    policy = _policy(config, trials)
    told = ToldTask(source, key("told")) if policy.told else None
    learner = RecurrentPPO(policy, config, run, key("init"), told)
    belief = BeliefLearner(policy, learner.params, config, run, key("belief"), trials.horizon)
    env = Blocks(trials, trials.sample(config.trials, key("tasks").numpy())[own], 1, config.threads)
    play = partial(run_trials, env, policy, inner=trials.episodes, chunk=config.chunk)
    every, state = config.checkpoint_every, lambda: learner.state() | belief.state()
    loop = run.loop(config.iterations, checkpoint_every=every, state=state)
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
            metrics |= belief.learn(experience, at("belief"))
            learned = time.perf_counter()
            metrics |= return_metrics(experience.returns().mean((0, 1)))
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                agent = _agent(config, source, policy, learner.params)
                metrics |= agent.validation_metrics(config.validation_tasks, run.seed)
            timings = {"sampling_s": sampled - started, "update_s": updated - sampled, "belief_s": learned - updated}
            loop.log(metrics, timings)
    env.close()


@plain_torch()
def load(run: Run, source: TaskFamily) -> MemoryAgent:
    """The agent of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    policy = _policy(run.config, Trials(family=source, episodes=run.config.trial_episodes))
    return _agent(run.config, source, policy, load_params(run, policy, source.name))


def _policy(config: Config, trials: Trials) -> RecurrentPolicy:
    told = told_numbers(trials.family, config.critic)
    return config.policy(trials.observation_space, trials.action_space, told)


def _agent(config: Config, family: TaskFamily, policy: RecurrentPolicy, params: Params) -> MemoryAgent:
    trials = Trials(family=family, episodes=config.trial_episodes)
    return MemoryAgent(policy, params, family, trials, trials.episodes, config.threads)
