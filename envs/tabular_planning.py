"""Backward induction in tabular MDPs, many at once, for a horizon of H steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Backup = Callable[[Values], Values]  # the value of each state next step (N, S) to that of each action now (N, S, A)


def model(reward: Values, transition: Values) -> Backup:
    """The backup of known MDPs: reward `(N, S, A)`, transition `(N, S, A, S)`."""
    n, states, actions, _ = transition.shape
    flat = transition.reshape(n, states * actions, states)
    return lambda value: reward + (flat @ value[..., None]).reshape(n, states, actions)


def plan(backup: Backup, n: int, states: int, horizon: int) -> Values:
    """Backward induction.

    Args:
        backup: the model.
        n: MDPs, N.
        states: S.
        horizon: H.

    Returns:
        `(N, H, S, A)`, the expected return of an action at step h and the best ones from then on.
    """
    worth, value = [], np.zeros((n, states))
    for _ in range(horizon):
        worth.append(backup(value))
        value = worth[-1].max(-1)
    return np.stack(worth[::-1], axis=1)


def most_hopeful(to: Values, radius: Values, value: Values) -> Values:
    """The highest expected `value` over distributions within an L1 `radius` of a transition.

    Up to radius / 2 moves to the best state, taken from the worst ones first.

    Args:
        to: `(N, S', S, A)` probability of the next state S', which comes first here.
        radius: `(N, S, A)`.
        value: `(N, S')`.

    Returns:
        `(N, S, A)`.
    """
    rows, order = np.arange(len(to)), value.argsort(-1).T  # the worst state first
    best = value[rows, order[-1]]
    left = np.minimum(radius / 2, 1 - to[rows, order[-1]])
    hopeful: Values = np.einsum("nz,nzsa->nsa", value, to)
    for state in order[:-1]:
        moved = np.minimum(to[rows, state], left)
        hopeful += moved * (best - value[rows, state])[:, None, None]
        left -= moved
    return hopeful
