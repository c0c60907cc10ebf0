"""How a run computes its meta-gradients: asked for or measured once, then remembered."""

from __future__ import annotations

from typing import Any, Literal

import torch

from metarl.errors import UserError
from metarl.meta import outer
from metarl.parallel import cores
from metarl.runs.record import build
from metarl.runs.run import Run

Strategy = Literal["auto", "loop", "threads", "vmap"]


def choose_plan(
    run: Run, strategy: Strategy, objective: outer.Objective, meta: Any, batch: Any, draws: bool = False
) -> outer.Plan:
    """The run's remembered plan for its meta-gradients, or a new one: given, or measured on `batch`.

    Raises:
        UserError: tasks cannot be computed together so, or not where the network `draws` random numbers: they come
            from generators that belong to the process.
    """
    stored = run.recall("meta_gradient", {})
    if stored is not None:
        plan: outer.Plan = build(outer.Plan, stored, f"choice 'meta_gradient' in {run.folder}")
        return plan
    if draws and strategy not in ("auto", "loop"):
        raise UserError(f"--strategy {strategy} is not for an encoder that draws random numbers (dropout): use loop")
    if strategy == "auto" and not draws:
        plan = outer.Plan(**run.ranks.broadcast(outer.choose(objective, meta, batch).to_json()))  # all measure at once
    else:
        name: outer.Strategy = "loop" if strategy == "auto" else strategy
        plan = outer.Plan(name, threads=cores() if name == "threads" else torch.get_num_threads())
    if strategy == "vmap":
        try:
            outer.meta_gradient(objective, meta, batch, plan)
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            raise UserError(f"--strategy vmap cannot compute this ({line}); use loop or threads") from error
    run.remember("meta_gradient", plan.to_json())
    return plan
