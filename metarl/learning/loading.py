"""The parameters of a trained policy, from the checkpoint of its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from metarl.errors import UserError
from metarl.nets.params import Params, on
from metarl.runs.run import Run
from metarl.seeding import Key


class Parameterised(Protocol):
    """What loading needs of a policy, with a memory or without."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, one set."""

    def project(self, params: Params) -> Params:
        """The nearest parameters within their bounds."""


def params_in(state: Mapping[str, Any]) -> Params:
    """The parameters in the state of a learner that keeps them as they are, under `params`."""
    params: Params = state["params"]
    return params


def load_params(
    run: Run, policy: Parameterised, source: str, params_of: Callable[[Mapping[str, Any]], Params] = params_in
) -> Params:
    """The parameters of a run's last checkpoint, within the policy's bounds, on the run's device.

    Args:
        run: trained with such a policy.
        policy: whose parameters they are to be: as many, of the same names, shapes and dtypes.
        source: the name of the family, for the error.
        params_of: takes them out of the state that the checkpoint holds; a KeyError, AttributeError or TypeError
            of it says that they are not there.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the policy.
    """
    restored = run.restore()
    if restored is None:
        raise UserError(f"{run.folder} has no checkpoint yet: train it first")
    expected = {name: (value.shape, value.dtype) for name, value in policy.init(Key(0).torch()).items()}
    misfit = UserError(f"the checkpoint in {run.folder} does not fit {source} and its config")
    try:
        if not isinstance(state := restored[1], Mapping):
            raise misfit
        params = params_of(state)
        described = {name: (value.shape, value.dtype) for name, value in params.items()}
    except (KeyError, AttributeError, TypeError):
        raise misfit from None
    if described != expected:
        raise misfit
    return policy.project(on(params, run.device))
