"""Ridge regression in closed form, differentiable in everything.

    W = argmin  1/S |X W - Y|^2 + penalty |W|^2
      = (X'X + c I)^-1 X'Y  =  X' (XX' + c I)^-1 Y,    c = S penalty

The second form (Woodbury) solves a system of S rows rather than F: the smaller of the two is solved.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """The weights `(F, N)`; NaN where the system is singular to rounding.

    Args:
        x: a row an example `(S, F)`.
        y: targets `(S, N)`.
        penalty: above 0, `()`.
    """
    rows, size = x.shape
    if rows <= size:
        return x.T @ _solved(x @ x.T, rows * penalty, y)
    return _solved(x.T @ x, rows * penalty, x.T @ y)


def _solved(gram: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """`(gram + ridge I)^-1 right` of a matrix that has no negative eigenvalue."""
    whole = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(whole)
    return torch.cholesky_solve(right, factor).where(failed == 0, torch.nan)
