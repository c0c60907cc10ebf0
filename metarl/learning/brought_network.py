"""A network that a user brings to a learner that adapts by gradients: tried out, and remembered by its run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.meta import inner
from metarl.nets.module import failing, name_of
from metarl.nets.params import Params, flatten, unflatten
from metarl.nets.policies import Policy
from metarl.ops.trust_region import gauss_newton_product
from metarl.runs.run import Run
from metarl.seeding import Key

CHOICE = "network"  # what config.json calls the description of a network that has no name


def check_adapts(policy: Policy, inputs: int, what: str) -> None:
    """Try whether a policy's derivatives go through an inner step, as often as a trust region needs.

    Args:
        policy: around the network.
        inputs: numbers of an observation.
        what: what to call it in an error.

    Raises:
        UserError: they do not, or are not finite.
    """
    like = policy.init(Key(0).torch())
    theta = flatten(like).requires_grad_()
    obs = torch.randn(2, 3, inputs, generator=Key(0)("network").torch())

    def loss(params: Params, _: None) -> Tensor:
        description = policy.distribution(params, obs).description()
        return torch.cat([(part**2).flatten(1) for part in description], 1).mean(1)

    with failing(f"{what}; adapting with it failed"):
        adapted = inner.adapt(inner.stack(unflatten(theta, like), 2), loss, None, inner.Rule(0.1))[-1]
        distribution = policy.distribution(adapted, obs)
        curved = gauss_newton_product(distribution.description(), theta, distribution.fisher)(torch.ones_like(theta))
    if not curved.isfinite().all():
        raise UserError(f"{what}; its derivatives are not finite")


def check_same(run: Run, network: Any, policy: Policy) -> None:
    """Check that a run is one with this very network, given in Python, or with none.

    Args:
        run: to train or to load.
        network: that was given; None for that of the config.
        policy: around it.

    Raises:
        UserError: the run has another network, or needs one.
    """
    known = run.recall(CHOICE, {"class": str, "parameters": {}})
    if network is None and known is not None:
        advice = "give it again in Python, as network=..."
        raise UserError(f"{run.folder} was trained with a network of its user's own ({known['class']}): {advice}")
    if network is not None and known is None and run.restore() is not None:
        raise UserError(f"{run.folder} was trained with the network of its config: leave network=... out")
    if network is not None and known is not None and known["parameters"] != _shapes(policy):
        differ = "the names or shapes of its parameters differ"
        raise UserError(f"{run.folder} was trained with another network ({known['class']}): {differ}")


def remember(run: Run, network: Any, policy: Policy) -> None:
    """Describe a network that was given in Python in the config.json of a run that begins."""
    if network is not None and run.recall(CHOICE) is None:
        run.remember(CHOICE, {"class": name_of(network), "parameters": _shapes(policy)})


def _shapes(policy: Policy) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in policy.init(Key(0).torch()).items()}
