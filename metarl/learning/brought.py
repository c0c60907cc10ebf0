"""Agents, task families and data sets that others have written: whether they are what they are named as."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from metarl.errors import UserError, shown
from metarl.seeding import Key

if TYPE_CHECKING:
    from metarl.learning.contract import Adaptable, Learner, Source
    from metarl.tasks import TaskFamily

Kind = Literal["family", "dataset"]
LEARNER = ("Config", "train", "load")  # the names of `metarl.learning.contract.Learner`
SOURCE = ("name", "splits", "unseen", "sample", "fixed", "options")  # of `metarl.learning.contract.Source`
# Packages whose lines in an error say little to the author of another.
KNOWN_PACKAGES = (
    *("metarl", "torch", "numpy", "gymnasium", "tyro"),
    *("contextlib", "dataclasses", "functools", "importlib"),
)


class Agent(NamedTuple):
    """An agent by its name: one that is trained has a learner, one that needs no training is made."""

    name: str
    source: Kind | None  # where its tasks come from; None where its author has not said
    about: str
    learner: Learner | None
    make: Callable[[Source], Adaptable] | None


def brought_agent(name: str, value: Any, label: str) -> Agent:
    """An agent that somebody else has written.

    Args:
        name: under which it was asked for.
        value: a learner, or its class: what has `Config`, `train` and `load`, such as a module; or what makes an
            `Adaptable` of a family or data set, such as the class of one.
        label: what it is, for the error: "agent mypackage.module:Agent".

    Raises:
        UserError: it is neither.
    """
    about = next(iter((inspect.getdoc(value) or "").splitlines()), "")
    present = [one for one in LEARNER if hasattr(value, one)]
    if isinstance(value, ModuleType) or len(present) > 1:
        if missing := [one for one in LEARNER if one not in present]:
            hint = "; an agent that needs no training is named as module:Name" if not present else ""
            raise UserError(f"{label} is no learner: it lacks {', '.join(missing)}{hint}")
        if not (isinstance(value.Config, type) and dataclasses.is_dataclass(value.Config)):
            raise UserError(f"{label}: its Config must be a dataclass, whose fields are its options")
        if value.Config.__hash__ is None:
            raise UserError(f"{label}: its Config must be frozen: write @dataclass(frozen=True) above it")
        learner = _made(value, label) if isinstance(value, type) else value
        _check_takes(learner.train, 3, f"{label}: its train must be a function of config, source and run")
        _check_takes(learner.load, 2, f"{label}: its load must be a function of run and source")
        return Agent(name, None, about, learner, None)
    if not callable(value):
        raise UserError(
            f"{label} is {_kind(value)}; name a learner (what has {', '.join(LEARNER)}) or the class of an agent "
            "that is made of a family"
        )

    def make(source: Source) -> Adaptable:
        return judgeable(_made(value, label, source), f"{label} made something")

    return Agent(name, None, about, None, make)


def judgeable(agent: Any, what: str) -> Adaptable:
    """An agent that somebody else has made or loaded.

    Raises:
        UserError: it has no curve; `what` begins the line.
    """
    if not callable(getattr(agent, "curve", None)):
        raise UserError(f"{what} {_kind(agent)}, which has no curve(tasks, budget, seed)")
    checked: Adaptable = agent
    return checked


def brought_source(value: Any, kind: Kind | None, label: str) -> type:
    """The class of a task family or data set that somebody else has written.

    Raises:
        UserError: it is none, or of the other kind, or lacks something.
    """
    from metarl.tasks import TaskFamily

    is_family = isinstance(value, type) and issubclass(value, TaskFamily)
    if not isinstance(value, type) or not (is_family or all(hasattr(value, one) for one in SOURCE[1:])):
        allowed = {
            "family": "a class below metarl.tasks.TaskFamily",
            "dataset": f"a class with {', '.join(SOURCE)}",
            None: "the class of a task family or data set",
        }
        raise UserError(f"{label} is {_kind(value)}; name {allowed[kind]}")
    if kind is not None and is_family != (kind == "family"):
        flag = "--family" if is_family else "--dataset"
        raise UserError(f"{label} is a {'task family' if is_family else 'data set'}: give it as {flag}")
    if lacking := sorted(getattr(value, "__abstractmethods__", ())):
        raise UserError(f"{label} lacks {', '.join(lacking)}")
    own = vars(value)
    if "__dataclass_fields__" not in own and own.get("__annotations__"):
        raise UserError(f"{label} has fields but is no dataclass: write @dataclass(frozen=True) above its class")
    if not dataclasses.is_dataclass(value):
        raise UserError(f"{label} is no dataclass: write @dataclass(frozen=True) above its class")
    if is_family and (missing := [one for one in ("name", "presets") if not hasattr(value, one)]):
        raise UserError(f"{label} lacks {' and '.join(missing)}; give them as attributes of the class")
    return value


def check_brought(source: Any, name: str) -> None:
    """Ask a family or data set of somebody else's for what every learner needs of it.

    Raises:
        UserError: something of it fails; the line of its author's code is named.
    """
    from metarl.tasks import TaskFamily

    try:
        for attribute in ("name", "splits", "unseen"):
            getattr(source, attribute)
        source.options()
        for attribute in ("horizon", "observation_space", "action_space"):
            if hasattr(type(source), attribute):
                getattr(source, attribute)
        if isinstance(source, TaskFamily):
            _check_family(source)
        source.fixed(source.splits[0], 1)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} cannot be used: {blame(error)}") from error


def _check_family(family: TaskFamily) -> None:
    from metarl.tasks import Tasks

    horizon: Any = family.horizon  # whatever its author has written
    observations = family.observation_space
    if not isinstance(horizon, (int, np.integer)) or isinstance(horizon, bool) or horizon < 1:
        raise UserError(f"{family.name}: horizon is {shown(horizon)}; it must be a whole number of steps, at least 1")
    if observations.shape is not None and 0 in observations.shape:
        raise UserError(f"{family.name}: observations must hold a number, got {observations}")
    drawn: Any = family.draw(2, Key(0)("look").uniforms(), family.splits[0])
    if not isinstance(drawn, Tasks):
        raise UserError(f"{family.name}: draw must return metarl.Tasks, got {shown(drawn)}")
    if len(drawn) != 2:
        raise UserError(f"{family.name}: draw was asked for 2 tasks and gave {len(drawn)}")


def _check_takes(function: Any, count: int, otherwise: str) -> None:
    if not callable(function):
        raise UserError(otherwise)
    with contextlib.suppress(ValueError):  # what is written in C may say nothing of its arguments
        signature = inspect.signature(function)
        try:
            signature.bind(*range(count))
        except TypeError:
            raise UserError(f"{otherwise}, not {signature}") from None


def blame(error: BaseException) -> str:
    """An error in one line, with the last line of others' code that led to it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in KNOWN_PACKAGES:
            return f"{text} ({os.path.basename(frame.f_code.co_filename)}, line {line})"
    return text


def _made(maker: Callable[..., Any], what: str, *arguments: Any) -> Any:
    try:
        return maker(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be made: {blame(error)}") from error


def _kind(value: Any) -> str:
    """What a value is, for an error."""
    if isinstance(value, ModuleType):
        return "a module"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"of type {type(value).__name__}"
