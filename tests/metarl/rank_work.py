"""What ranks do in tests, in a file that their processes can import."""

import os
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch.optim import Adam

from metarl.agents import maml_trpo, promp
from metarl.envs import make_family
from metarl.errors import NonFiniteError, UserError
from metarl.learning import policy_gradient
from metarl.learning.meta_batch import MetaBatch
from metarl.learning.meta_policy_gradient import MetaBatches
from metarl.learning.policy_gradient import Experience
from metarl.nets.params import flatten, unflatten
from metarl.ranks import LostRankError, Ranks
from metarl.seeding import Key


class OfTwoArgumentsError(Exception):
    """An error that pickles but cannot be made again."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def everything(ranks: Ranks) -> dict[str, Any]:
    """Each way of telling the others something, once."""
    a, b = ranks.sum(torch.full((2, 3), 10.0**ranks.rank), torch.tensor(float(ranks.rank)))
    return {
        "share": ranks.share(5),
        "sum": (a.tolist(), float(b)),
        "sums": ranks.sums({"steps": 2**53 - 2.0, "one": float(ranks.rank == 0)}) if ranks.size == 1 else None,
        "double": ranks.sums({"x": 0.1 * ranks.rank, "y": 1.0}),
        "gather": ranks.gather(f"rank {ranks.rank}"),
        "broadcast": ranks.broadcast({"from": ranks.rank}),
        "any": (ranks.any(False), ranks.any(ranks.rank == ranks.size - 1)),
        "together": ranks.together(lambda: ranks.rank),
        "first": ranks.first(lambda: ("made by", ranks.rank)),
    }


def errors(ranks: Ranks) -> list[tuple[str, str, bool]]:
    """What every rank raises where one does, or several."""

    def fail(*failing: int, error: Exception) -> Any:
        if ranks.rank in failing:
            raise error

    seen = []
    broken = NonFiniteError("a parameter is not finite", tasks=[0], of=2)
    for attempt in (
        lambda: ranks.together(lambda: fail(1, error=UserError("no such file"))),
        lambda: ranks.together(lambda: fail(1, error=broken), tasks=5),
        lambda: ranks.together(lambda: fail(0, 1, error=ValueError(f"of rank {ranks.rank}"))),
        lambda: ranks.together(lambda: fail(1, error=OfTwoArgumentsError("a", "b"))),
        lambda: ranks.first(lambda: fail(0, error=UserError("the folder holds a run"))),
    ):
        try:
            attempt()
        except Exception as error:
            seen.append((type(error).__name__, str(error), getattr(error, "everywhere", False)))
    assert ranks.gather(ranks.rank) == list(range(ranks.size))  # nobody waits for a message that never comes
    return seen


def one_dies(ranks: Ranks) -> str:
    """What the others see of a rank that is killed."""
    ranks.any(False)
    if ranks.rank == 1:
        os.kill(os.getpid(), 9)
    try:
        while True:
            ranks.sum(torch.ones(3))
    except LostRankError as error:
        return str(error)


Updates = tuple[NDArray[Any], list[dict[str, float]]]


def meta_updates(ranks: Ranks, cases: list[tuple[str, bool, dict[str, Any]]]) -> list[Updates]:
    """Parameters and metrics after 5 meta-updates of each agent, with its options, in double precision or not."""
    return [_meta_updates(ranks, *case) for case in cases]


def _meta_updates(ranks: Ranks, agent: str, double: bool, options: dict[str, Any]) -> Updates:
    family = make_family("metarl/BernoulliBandit-v0")
    kind = {"maml-trpo": maml_trpo, "promp": promp}[agent].Config
    config = kind(tasks=5, episodes=3, hidden=(8,), threads=1, **options)
    policy, key = config.policy(family), Key(0)
    batches, params, rule = (
        MetaBatches(config, family, policy, key, ranks),
        policy.init(key.torch()),
        config.rule(policy),
    )
    if double:
        params = {name: value.double() for name, value in params.items()}
    theta = flatten(params).requires_grad_()
    adam, penalties, lines = (
        Adam([theta], 1e-2),
        [config.kl_penalty] * config.inner_steps if agent == "promp" else [],
        [],
    )
    for iteration in range(5):
        data = batches.gather({name: value.detach().float() for name, value in params.items()}, iteration)
        if double:
            data = in_double(data, policy, params, rule)
        if agent == "promp":
            penalties, metrics = promp.meta_update(policy, theta, params, adam, data, penalties, config)
            params = unflatten(theta.detach().clone(), params)
        else:
            params, metrics = maml_trpo.meta_step(policy, params, data, config)
        lines.append(metrics | data.metrics() | batches.validation(params, iteration, 0))
    return flatten(params).detach().numpy(), lines


def in_double(data: MetaBatch, policy: Any, params: Any, rule: Any) -> MetaBatch:
    """A meta-batch in double precision, its iterates recomputed so that ratios start at 1."""

    def doubled(experience: Experience) -> Experience:
        episodes = experience.episodes
        episodes = replace(episodes, obs=episodes.obs.double(), actions=episodes.actions)
        advantages, weights = experience.advantages.double(), experience.weights.double()
        return replace(experience, episodes=episodes, advantages=advantages, weights=weights)

    support = [doubled(part) for part in data.support]
    iterates = data.readapt(params, lambda now, k: policy_gradient.loss(policy, now, support[k]), rule)
    iterates = [{name: value.detach() for name, value in each.items()} for each in iterates]
    return replace(data, support=support, query=doubled(data.query), iterates=iterates)
