"""Whether a state that was read looks as the learner's own: the same names, types, shapes and dtypes.

A checkpoint says whose it is, and one of another run is refused by that (`metarl.runs.recovery`). What it holds is
looked at all the same: files of earlier versions say nothing, and a learner must not go on with half of a state.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import GenericAlias
from typing import Any, get_origin

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarl.errors import UserError, shown
from metarl.runs.checkpoints import REMEDY


def check(state: Any, like: Mapping[str, Any], what: str) -> None:
    """Raise UserError unless a state has the entries of another one, which look the same.

    Args:
        state: that was read.
        like: entries that it must have; it may have others. In place of a value there may be its type (also
            `list[...]`, `dict[str, ...]`), and in place of an optimiser's state the optimiser.
        what: what to call it.
    """
    entries = {name: state.get(name) for name in like} if isinstance(state, Mapping) else state
    if misfit := _misfit(entries, like, ""):
        raise UserError(f"{what} does not fit: {misfit}; {REMEDY}")


def _misfit(value: Any, like: Any, where: str) -> str:
    """What tells a value from the one that it must look like; "" where nothing does."""
    if isinstance(like, Optimizer):
        return _misfit_of_optimiser(value, like, where)
    if isinstance(like, GenericAlias):
        return _misfit_of_items(value, like, where)
    if isinstance(like, type):
        return "" if type(value) is like else _differ(where, value, like.__name__)
    if isinstance(like, Tensor):
        same = isinstance(value, Tensor) and (value.shape, value.dtype) == (like.shape, like.dtype)
        return "" if same else _differ(where, value, described(like))
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            return _differ(where, value, "a dictionary")
        if differing := [name for name in (*like, *value) if name not in value or name not in like]:
            return f"{where}[{shown(differing[0])}] is only {'here' if differing[0] in like else 'there'}"
        return _first((value[name], like[name], f"{where}[{name!r}]") for name in like)
    if isinstance(like, (list, tuple)):
        if type(value) is not type(like) or len(value) != len(like):
            return _differ(where, value, f"a {type(like).__name__} of {len(like)}")
        return _first((value[i], like[i], f"{where}[{i}]") for i in range(len(like)))
    return "" if type(value) is type(like) else _differ(where, value, type(like).__name__)


def _misfit_of_items(value: Any, kind: GenericAlias, where: str) -> str:
    """What tells a value from a `list[...]` or a `dict[str, ...]`."""
    if not isinstance(value, (dict, list)) or get_origin(kind) is not type(value):
        return _differ(where, value, f"a {kind.__origin__.__name__}")
    if isinstance(value, dict):
        if strange := [name for name in value if not isinstance(name, str)]:
            return f"{where} has the key {shown(strange[0])}"
        return _first((item, kind.__args__[-1], f"{where}[{name!r}]") for name, item in value.items())
    return _first((item, kind.__args__[-1], f"{where}[{i}]") for i, item in enumerate(value))


def _first(parts: Iterable[tuple[Any, Any, str]]) -> str:
    return next((misfit for value, like, where in parts if (misfit := _misfit(value, like, where))), "")


def _misfit_of_optimiser(value: Any, optimiser: Optimizer, where: str) -> str:
    """What tells a state from one of an optimiser's, whose own is empty before its first step."""
    if wrong := _misfit(value, {"state": dict, "param_groups": list}, where):
        return wrong
    groups, parameters = optimiser.param_groups, [one for group in optimiser.param_groups for one in group["params"]]
    counts = [len(group["params"]) for group in groups]
    theirs = [group.get("params") for group in value["param_groups"] if isinstance(group, dict)]
    if [len(each) for each in theirs if isinstance(each, list)] != counts:
        return f"{where}['param_groups'] is not of {', '.join(map(str, counts))} parameters"
    if [index for each in theirs if isinstance(each, list) for index in each] != list(range(len(parameters))):
        return f"{where}['param_groups'] does not count the parameters"
    for group, own in zip(value["param_groups"], groups, strict=True):
        for name, setting in group.items():
            if name != "params" and name in own and not _like_setting(setting, own[name]):
                return _differ(f"{where}['param_groups'][{shown(name)}]", setting, type(own[name]).__name__)
    keeps = _kept(optimiser)
    for index, kept in value["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            return f"{where}['state'][{shown(index)}] is of no parameter here"
        like = {name: parameters[index] if like is _LIKE_PARAMETER else like for name, like in keeps.items()}
        if wrong := _misfit(kept, like, f"{where}['state'][{index}]"):
            return wrong
    return ""


_LIKE_PARAMETER = object()


def _kept(optimiser: Optimizer) -> dict[str, Any]:
    """What an optimiser keeps of a parameter once it has taken a step, by name: seen in one of its kind."""
    arguments = inspect.signature(type(optimiser)).parameters
    options = {name: value for name, value in optimiser.defaults.items() if name in arguments}
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.zeros(2)
    other = type(optimiser)([parameter], **options)
    other.step()
    kept = other.state[parameter].items()
    return {name: _LIKE_PARAMETER if getattr(value, "shape", None) == (2,) else value for name, value in kept}


def _like_setting(value: Any, own: Any) -> bool:
    """Whether a setting of an optimiser is of the kind that it has."""
    if isinstance(own, bool) or own is None or isinstance(value, bool) or value is None:
        return isinstance(value, (bool, type(None)))
    if isinstance(own, (int, float)):
        return isinstance(value, (int, float))
    if isinstance(own, Sequence) and not isinstance(own, str):
        return isinstance(value, (list, tuple)) and len(value) == len(own) and all(map(_like_setting, value, own))
    return isinstance(value, type(own))


def _differ(where: str, value: Any, wanted: str) -> str:
    return f"{where or 'it'} is {described(value)} there and {wanted} here"


def described(value: Any) -> str:
    """A value in words: a tensor's shape and dtype, anything else's type or itself."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}" if isinstance(value, (Mapping, list, tuple)) else shown(value)
