"""Small trials, acted or made up, that several files of tests look at."""

import torch

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.nets.actor_critic import recurrent_policy
from metarl.nets.recurrent import GRU
from metarl.sampling.episodes import Episodes
from metarl.sampling.trials import TrialEpisodes, run_trials
from metarl.seeding import Key

BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)


def vivid(policy, seed=0, scale=1.0):
    """Parameters with which everything seen shows in everything decision."""
    params, generator = policy.init(Key(seed).torch()), Key(seed)("noise").torch()
    return {n: v + scale * torch.randn(v.shape, generator=generator) for n, v in params.items()}


def acting(family=BANDIT, episodes=3, tasks=4, trials=2, memory=GRU):
    """A vector of trials with a policy for it."""
    joined = Trials(family=family, episodes=episodes)
    policy = recurrent_policy(joined.observation_space, joined.action_space, lambda inputs: memory(inputs, 8))
    return joined.make_vec(joined.fixed("train", tasks), trials), policy, vivid(policy)


def act(env, policy, params, key, **options):
    return run_trials(env, policy, params, key, inner=env.family.episodes, **options)


def synthetic(rewards, values, valid=None, inner=1, **flags):
    """Trials with given rewards and values `(N, H)`; one number seen, two actions."""
    rewards, values = torch.tensor(rewards), torch.tensor(values)
    n, h = rewards.shape
    valid = torch.ones(n, h, dtype=torch.bool) if valid is None else torch.tensor(valid)
    ends = {name: torch.tensor(flags.get(name, [[False] * h] * n))[:, None] for name in ("terminated", "truncated")}
    episodes = Episodes(
        obs=torch.zeros(n, 1, h, 1),
        actions=torch.zeros(n, 1, h, dtype=torch.int64),
        rewards=rewards[:, None],
        valid=valid[:, None],
        unstable=torch.zeros(n, 1, dtype=torch.bool),
        **ends,
    )
    return TrialEpisodes(episodes, inner, torch.zeros(h, n), values.T, torch.zeros(1, n, 1))
