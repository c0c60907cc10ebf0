"""A policy without memory, adapted to one task."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from metarl.ambient import plain_torch
from metarl.learning.acting import Adapted
from metarl.learning.places import Place
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.seeding import Key
from metarl.tasks import Array


class AdaptedPolicy(Adapted):
    """A policy and the parameters it has adapted to.

    Attributes:
        policy: without memory, so that there is no state.
        params: of the task, stacked as of one task, `(1, ...)`.
    """

    def __init__(self, where: Place, policy: Policy, params: Params, key: Key, **cost: Any) -> None:
        super().__init__(where, **cost)
        self.policy = policy
        self.params = params
        self._rng = key.numpy()

    @plain_torch()
    def _act(
        self, obs: Array, state: Any, starts: NDArray[Any], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        device = next(iter(self.params.values())).device
        seen = torch.from_numpy(obs.astype("float32"))[None].to(device)
        with torch.no_grad():
            distribution = self.policy.distribution(self.params, seen)
            if deterministic:
                actions = distribution.mode()
            else:
                noise = torch.from_numpy(self.policy.noise(self._rng, (1, len(obs)))).to(device)
                actions = distribution.sample(noise)
        chosen: Array = actions[0].cpu().numpy()
        return chosen, None
