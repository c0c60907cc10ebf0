"""How fast RL² samples and learns, beside sb3-contrib's RecurrentPPO.

    python scripts/benchmark_rl2.py --json results/benchmarks/rl2.json

Both sides do whole updates: sample as many trials as the batch holds, then PPO with the same number of
epochs, gradient steps, LSTM units and steps a batch, and linear heads on the LSTM. The rates are
environment steps a second, sampling and learning together. For each problem there are three other sides:

- RecurrentPPO as it comes, on `RL2Env`s side by side: actor and critic have an LSTM each.
- The same with one LSTM, as ours has (its critic then sends no gradient into it; ours does).
- That again on our vectorised trials through `SB3VecEnv`, so that nothing but the learner differs (its
  tasks then stay the same from one trial to the next, which spares it drawing new ones).

With one LSTM the arithmetic of both sides is nearly the same, and on few cores it is most of the time:
the third ratio is what is left when the environments cost nothing.

Two rows measure RL² by itself: the update of an LSTM, with its heads, loss and optimiser, beside forwards and backwards
of the same LSTM alone over as many sequences, in whichever blocks it is quickest; and whole trainings on half-cheetah
(preset `mujoco` of RL²) on two threads, whose halves of the trials act side by side, beside one.

To add a row: write a function that returns a `Comparison` and put it into `ROWS`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from benchmark import Comparison, Work, main, rate
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl.agents import rl2
from metarl.envs import make_family
from metarl.envs.wrappers.trials import RL2Env, Trials
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.learning.recurrent_ppo import update
from metarl.learning.recurrent_settings import Settings
from metarl.learning.sequences import Sequences, prepare
from metarl.meta.shards import on_threads
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.recurrent import LSTM
from metarl.ops.reward_scale import RewardScale
from metarl.parallel import intra_op_threads
from metarl.sampling.blocks import Blocks
from metarl.sampling.trials import run_trials
from metarl.seeding import Key

HIDDEN, EPOCHS, MINIBATCHES = 128, 4, 10
TARGET = 5.0


def ours(family: Trials, trials: int) -> Work:
    """Our side: fresh tasks, a trial of each, advantages, PPO."""
    threads = torch.get_num_threads()
    config = rl2.Config(
        trials=trials, memory="lstm", hidden=HIDDEN, epochs=EPOCHS, minibatches=MINIBATCHES, threads=threads
    )
    policy = recurrent_policy(family.observation_space, family.action_space, lambda inputs: LSTM(inputs, HIDDEN))
    params = {name: value.requires_grad_() for name, value in policy.init(Key(0)("init").torch()).items()}
    optimiser = torch.optim.Adam(params.values(), config.step_size)
    env = family.make_vec(family.fixed("train", trials))
    updates = 0

    def work() -> float:
        nonlocal updates
        key = Key(0)("update", updates)
        updates += 1
        with intra_op_threads(threads):
            env.reset(options={"tasks": family.sample(trials, key("tasks").numpy())})
            experience = run_trials(env, policy, params, key, inner=family.episodes)
            batch, _ = prepare(experience, config, RewardScale())
            update(policy, params, optimiser, batch, config, key)
        return float(trials * family.horizon)

    return work


def theirs(vec: VecEnv, horizon: int, shared: bool) -> Work:
    """RecurrentPPO: one rollout of a trial in every environment, and its updates."""
    steps = vec.num_envs * horizon
    kwargs: dict[str, Any] = {"net_arch": [], "lstm_hidden_size": HIDDEN}
    if shared:
        kwargs |= {"shared_lstm": True, "enable_critic_lstm": False}
    model = RecurrentPPO(
        "MlpLstmPolicy",
        vec,
        n_steps=horizon,
        batch_size=steps // MINIBATCHES,
        n_epochs=EPOCHS,
        learning_rate=1e-3,
        clip_range=0.1,
        gae_lambda=0.3,
        policy_kwargs=kwargs,
        device="cpu",
        seed=0,
    )

    def work() -> float:
        model.learn(steps, reset_num_timesteps=False)
        return float(steps)

    return work


def compared(name: str, family: Trials, trials: int, *, shared: bool, vectorised: bool) -> Comparison:
    """Both sides on the same family and batch."""
    vec: VecEnv
    if vectorised:
        vec = SB3VecEnv(family.make_vec(family.fixed("train", trials)))
    else:
        vec = DummyVecEnv([lambda: RL2Env(family.family, family.episodes)] * trials)
    what = f"{'one LSTM' if shared else 'two LSTMs'}, {'our vectorised trials' if vectorised else 'RL2Envs'}"
    size = f"{trials} trials of {family.horizon} steps"
    title = f"{name}, {size}: RL² / RecurrentPPO ({what}), environment steps/s"
    return Comparison(title, ours(family, trials), theirs(vec, family.horizon, shared), TARGET, vec.close)


BANDIT = Trials(family=make_family("metarl/BernoulliBandit-v0"))
MDP = Trials(family=make_family("metarl/TabularMDP-v0"))
CHEETAH = make_family("metarl/HalfCheetahVelocity-v0", preset="varibad")
BLOCKS = (10, 20, 25, 50, 100)  # sequences, of 100


def learning(batch: Sequences, policy: RecurrentPolicy, settings: Settings) -> Work:
    """An update; a step counts once an epoch."""
    params = {name: value.requires_grad_() for name, value in policy.init(Key(0)("init").torch()).items()}
    optimiser = torch.optim.Adam(params.values(), 1e-3, fused=True)

    def work() -> float:
        update(policy, params, optimiser, batch, settings, Key(0))
        return float(settings.epochs * batch.valid.numel())

    return work


def kernel(memory: LSTM, length: int, sequences: int, threads: int) -> Work:
    """A memory forwards and backwards over as many sequences, in the blocks that are quickest here and now."""
    params = {name: value.requires_grad_() for name, value in memory.init(Key(0)("init").torch()).items()}
    x = torch.randn(length, sequences, memory.inputs, generator=Key(0)("x").torch())

    def differentiated(block: torch.Tensor) -> None:
        out, _ = memory.sequence(params, block.contiguous(), memory.start(block.shape[1]))
        torch.autograd.grad(out.sum(), list(params.values()))

    def in_blocks(size: int) -> Work:
        parts = x.split(size, 1)

        def work() -> float:
            with on_threads(threads) as each:
                each(differentiated, parts)
            return float(length * sequences)

        return work

    return max((in_blocks(size) for size in BLOCKS), key=lambda work: rate(work, 0.3))


def update_against_kernel() -> Comparison:
    """1,000 trials of an MDP in 10 minibatches of 100."""
    threads, trials = torch.get_num_threads(), 1000
    policy = recurrent_policy(MDP.observation_space, MDP.action_space, lambda inputs: LSTM(inputs, HIDDEN))
    settings = Settings(epochs=1, minibatches=MINIBATCHES, threads=threads)
    env, key = MDP.make_vec(MDP.fixed("train", trials)), Key(0)
    experience = run_trials(env, policy, policy.init(key.torch()), key, inner=MDP.episodes)
    batch, _ = prepare(experience, settings, RewardScale())
    assert isinstance(policy.memory, LSTM)
    return Comparison(
        name=f"MDP n=10, LSTM {HIDDEN}, minibatches of {trials // MINIBATCHES} x {MDP.horizon}, threads {threads}: "
        "update / the LSTM alone in its best blocks, steps/s",
        ours=learning(batch, policy, settings),
        baseline=kernel(policy.memory, MDP.horizon, trials // MINIBATCHES, threads),
        target=0.8,
    )


def cheetah(threads: int) -> Work:
    """Iterations of a whole training with the preset `mujoco`."""
    config = dataclasses.replace(rl2.DEFAULTS["mujoco"], threads=threads)
    family = Trials(family=CHEETAH, episodes=config.trial_episodes)
    policy = config.policy(family.observation_space, family.action_space, family.horizon)
    params = {name: value.requires_grad_() for name, value in policy.init(Key(0)("init").torch()).items()}
    optimiser = torch.optim.Adam(params.values(), config.step_size)
    env = Blocks(family, family.fixed("train", config.trials), 1, threads)

    def work() -> float:
        with intra_op_threads(1):
            experience = run_trials(env, policy, params, Key(0), inner=family.episodes)
            batch, _ = prepare(experience, config, RewardScale())
            update(policy, params, optimiser, batch, config, Key(0))
        return float(config.trials * family.horizon)

    return work


def cheetah_threads() -> Comparison:
    """Two threads against one."""
    name = "half-cheetah velocity, preset mujoco, whole training: 2 threads / 1 thread, environment steps/s"
    return Comparison(name, cheetah(2), cheetah(1), 2.0)


def bandit() -> Comparison:
    """Bernoulli bandit, n = 10, k = 5; RecurrentPPO as it comes."""
    return compared("bandit n=10 k=5", BANDIT, 2500, shared=False, vectorised=False)


def bandit_one_lstm() -> Comparison:
    """With one LSTM."""
    return compared("bandit n=10 k=5", BANDIT, 2500, shared=True, vectorised=False)


def bandit_vectorised() -> Comparison:
    """With one LSTM, on our vectorised trials."""
    return compared("bandit n=10 k=5", BANDIT, 2500, shared=True, vectorised=True)


def mdp() -> Comparison:
    """Tabular MDPs, 10 episodes of 10 steps; RecurrentPPO as it comes."""
    return compared("MDP n=10", MDP, 250, shared=False, vectorised=False)


def mdp_one_lstm() -> Comparison:
    """With one LSTM."""
    return compared("MDP n=10", MDP, 250, shared=True, vectorised=False)


def mdp_vectorised() -> Comparison:
    """With one LSTM, on our vectorised trials."""
    return compared("MDP n=10", MDP, 250, shared=True, vectorised=True)


ROWS = [
    update_against_kernel,
    cheetah_threads,
    bandit,
    bandit_one_lstm,
    bandit_vectorised,
    mdp,
    mdp_one_lstm,
    mdp_vectorised,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
