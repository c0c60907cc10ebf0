"""Any recurrent learner on any family: sb3-contrib's RecurrentPPO on `RL2Env`, judged on frozen test tasks.

    pip install "metarl-suite[contrib]"
    python scripts/recurrent_ppo_on_trials.py --family metarl/BernoulliBandit-v0 --steps 300000

`RL2Env` is one Gymnasium environment whose episodes are whole trials, each of a fresh task. What the agent
learned is then measured on tasks it has never seen, all trials at once.
"""

from __future__ import annotations

import argparse

import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from metarl.envs import FAMILIES, make_family
from metarl.envs.wrappers.trials import RL2Env, Trials
from metarl.seeding import Key
from metarl.tasks import TaskFamily


def train(family: TaskFamily, steps: int, envs: int, seed: int) -> RecurrentPPO:
    """RecurrentPPO with a small LSTM that actor and critic share; an update is a trial in every environment."""
    horizon = Trials(family=family).horizon
    vec = make_vec_env(lambda: RL2Env(family), n_envs=envs, seed=seed)
    policy = {"lstm_hidden_size": 64, "net_arch": [], "shared_lstm": True, "enable_critic_lstm": False}
    model = RecurrentPPO(
        "MlpLstmPolicy",
        vec,
        n_steps=horizon,
        batch_size=envs * horizon // 4,
        n_epochs=4,
        learning_rate=1e-3,
        gae_lambda=0.3,
        policy_kwargs=policy,
        device="cpu",
        seed=seed,
        verbose=1,
    )
    return model.learn(steps, log_interval=10)


def returns(model: RecurrentPPO, family: TaskFamily, tasks: int, seed: int) -> np.ndarray:
    """Return of one trial on each of the first frozen test tasks, `(tasks,)`."""
    trials = Trials(family=family)
    env = trials.make_vec(family.fixed("test", tasks))
    obs, _ = env.reset(seed=Key(seed)("test").integer())
    memory, start, total = None, np.ones(tasks, bool), np.zeros(tasks)
    for _ in range(trials.horizon):
        actions, memory = model.predict(obs, memory, start)
        obs, rewards, *_ = env.step(actions)
        total, start = total + rewards, np.zeros(tasks, bool)
    return total


def main() -> None:
    """Train, then print the mean return of a trial and its standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="metarl/BernoulliBandit-v0", metavar="ID")
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of training")
    parser.add_argument("--envs", type=int, default=256, help="environments side by side")
    parser.add_argument("--tasks", type=int, default=5000, help="test tasks")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    family = make_family(asked.family)
    earned = returns(train(family, asked.steps, asked.envs, asked.seed), family, asked.tasks, asked.seed)
    error = earned.std() / np.sqrt(len(earned))
    print(f"{asked.family}: return of a trial {earned.mean():.3f} +- {error:.3f} on {asked.tasks} test tasks")


if __name__ == "__main__":
    main()
