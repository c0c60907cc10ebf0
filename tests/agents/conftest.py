"""What the tests of gradient-adapting agents start from."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from metarl.learning import policy_gradient
from metarl.learning.meta_batch import MetaBatch, adapt_to_tasks
from metarl.seeding import Key


@pytest.fixture
def gathered() -> Callable:
    """A policy with its parameters, its rule and one meta-batch of real data, in double precision."""

    def gather(family, config):
        policy = config.policy(family)
        params, rule = policy.init(Key(0).torch()), config.rule(policy)
        env = family.make_vec(family.fixed("train", config.tasks), config.episodes)
        data = adapt_to_tasks(env, policy, params, rule, Key(1), config.gamma, config.gae_lambda)
        params = {name: value.double() for name, value in params.items()}
        support = [in_double(part) for part in data.support]
        data = MetaBatch(support, data.iterates, in_double(data.query))
        # The policies that "gathered" the data, recomputed in double so that ratios start at 1.
        iterates = data.readapt(params, lambda now, k: policy_gradient.loss(policy, now, support[k]), rule)
        iterates = [{name: value.detach() for name, value in iterate.items()} for iterate in iterates]
        return policy, params, rule, replace(data, iterates=iterates)

    return gather


def in_double(experience):
    actions = experience.episodes.actions
    actions = actions.double() if actions.is_floating_point() else actions
    episodes = replace(experience.episodes, obs=experience.episodes.obs.double(), actions=actions)
    advantages, weights = experience.advantages.double(), experience.weights.double()
    return replace(experience, episodes=episodes, advantages=advantages, weights=weights)
