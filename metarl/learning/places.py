"""Where an agent acts: a task of its family, or one Gymnasium environment, asked for episodes.

An environment is anybody's, with the family's spaces or with those that `GymFamily` maps to them. What it is given is
a member of its own action space; what it answers is checked, and refused in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from metarl.errors import NonFiniteError, UserError, shown
from metarl.nets.distributions import NO_ACTION
from metarl.sampling.episodes import Episodes
from metarl.seeding import Key
from metarl.tasks import Array, TaskEnv, TaskFamily, Tasks
from metarl.tasks.data import within_float32
from metarl.tasks.spaces import member, offered

Where = Any  # a task (a mapping), a `Tasks` of one task, or a Gymnasium environment


@dataclass(frozen=True)
class Place:
    """Where an agent acts: one task of a family, or one environment.

    Attributes:
        family: whose observations the agent knows.
        tasks: the task, a batch of 1; None where it is not known.
        env: the environment; None where the task alone was given.
    """

    family: TaskFamily
    tasks: Tasks | None
    env: gymnasium.Env[Any, Any] | None

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """What actions are members of: the environment's own space, or the family's."""
        return self.family.action_space if self.env is None else self.env.action_space

    def environment(self) -> gymnasium.Env[Any, Any]:
        """The environment, or one of the task."""
        if self.env is not None:  # whose truth is its own affair: it may have a length
            return self.env
        assert self.tasks is not None
        return self.family.make(self.tasks[0])

    def begin(self, env: gymnasium.Env[Any, Any], key: Key) -> Any:
        """The first observation of an episode, always of the same task."""
        obs, _ = _asked(self.family, "reset", env.reset, 2, seed=key.integer() % 2**31)
        return _numbers(self.family, "an observation", obs)

    def step(self, env: gymnasium.Env[Any, Any], action: Any) -> tuple[Array, float, bool, bool]:
        """Observation, reward, terminated, truncated.

        Raises:
            UserError: the environment raises an error, or answers with something else than Gymnasium's API says.
            NonFiniteError: it answers with a number that is not finite.
        """
        obs, reward, terminated, truncated, _ = _asked(self.family, "step", env.step, 5, action)
        obs, reward = _numbers(self.family, "an observation", obs), _numbers(self.family, "a reward", reward)
        return obs, reward.item(), bool(terminated), bool(truncated)


def _asked(family: TaskFamily, what: str, method: Callable[..., Any], size: int, *args: Any, **options: Any) -> Any:
    """What the environment answers, `size` things; what goes wrong in it is said in one line."""
    try:
        answer = method(*args, **options)
    except (UserError, NonFiniteError):
        raise
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"the environment given for {family.name}: {what} raised {line}") from error
    if not isinstance(answer, tuple) or len(answer) != size:
        raise UserError(
            f"the environment given for {family.name}: {what} must return {size} things (Gymnasium's API), got "
            f"{shown(answer)}"
        )
    return answer


def _numbers(family: TaskFamily, what: str, values: Any) -> Array:
    """What an environment gave, as numbers of the shape they have in the family."""
    shape = (family.observation_space.shape or ()) if what == "an observation" else ()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.size != math.prod(shape) or (shape and array.shape != shape):
        raise UserError(f"the environment given for {family.name}: {what} has shape {shape}, got {shown(values)}")
    if not within_float32(array):
        raise NonFiniteError(f"{what} of the environment given for {family.name} is {shown(values)}", environment=True)
    return array


def place(family: TaskFamily, where: Where) -> Place:
    """Where an agent of a family is to act.

    Raises:
        UserError: it is no task of the family and no environment, or an environment that is closed, that changes its
            task at every reset, of another family, or with other spaces.
    """
    if isinstance(where, Tasks):
        if len(where) != 1:
            raise UserError(f"an agent adapts to one task at a time, got {len(where)}; `curve` judges on many")
        _check_tasks(family, where)
        return Place(family, where, None)
    if isinstance(where, Mapping):
        try:
            tasks = Tasks({str(name): np.asarray(values)[None] for name, values in where.items()})
        except ValueError:
            raise UserError(f"a task of {family.name} is a mapping of arrays, got {shown(where)}") from None
        _check_tasks(family, tasks)
        kinds = {name: values.dtype for name, values in family.fixed("train", 1).arrays.items()}
        return Place(family, Tasks({name: values.astype(kinds[name]) for name, values in tasks.arrays.items()}), None)
    if not isinstance(where, gymnasium.Env):
        raise UserError(
            f"an agent of {family.name} adapts to a task ({{name: array}}) or in a Gymnasium environment, got "
            f"{type(where).__name__}"
        )
    tasks_of = _task_of(family, where) if isinstance(where.unwrapped, TaskEnv) else None
    _check_spaces(family, where)
    return Place(family, tasks_of, where)


def _check_tasks(family: TaskFamily, tasks: Tasks) -> None:
    try:
        family.check_tasks(tasks)
    except ValueError as error:
        raise UserError(str(error)) from None


def _task_of(family: TaskFamily, env: gymnasium.Env[Any, Any]) -> Tasks:
    """The task that a family's own environment runs."""
    inner = env.unwrapped
    assert isinstance(inner, TaskEnv)
    if inner.family != family:
        theirs, ours = (f"{one.name} with {shown(one.options())}" for one in (inner.family, family))
        raise UserError(f"the environment is of {theirs}, and the agent of {ours}")
    if inner.vector.closed:
        raise UserError("the environment is closed; make another one")
    if not inner.keeps_task:
        raise UserError(
            f"the environment of {family.name} draws another task at every reset: give family.make(task), or "
            "gymnasium.make(..., task=task)"
        )
    tasks: Tasks = inner.vector.tasks
    return tasks


def _check_spaces(family: TaskFamily, env: gymnasium.Env[Any, Any]) -> None:
    theirs, ours = env.observation_space, family.observation_space
    if type(theirs) is not type(ours) or theirs.shape != ours.shape or getattr(theirs, "n", 0) != getattr(ours, "n", 0):
        raise UserError(f"observations of {family.name} are {ours}, but those of the environment {theirs}")
    if offered(env.action_space) != family.action_space:
        raise UserError(
            f"actions of {family.name} are {family.action_space}, and those of the environment, {env.action_space}, do "
            "not map to them"
        )


def episodes_in(where: Place, act: Callable[[Tensor, int, int], Tensor], count: int, key: Key) -> Episodes:
    """Episodes of one environment, one after the other, as `metarl.sampling.rollout` gives them.

    Args:
        where: with an environment. Its episodes are cut at the family's horizon.
        act: `(obs (1, 1, obs_dim) float32, episode, t)` to an action `(1, 1, ...)` in the family's units.
        count: how many, E.
        key: names the streams of start states.

    Returns:
        `(1, E, H, ...)`.

    Raises:
        UserError: the environment raises an error, or answers with something else than Gymnasium's API says.
        NonFiniteError: it answers with a number that is not finite.
    """
    family, env = where.family, where.environment()
    horizon, space = family.horizon, family.action_space
    discrete = isinstance(space, Discrete)
    shapes = {
        "obs": (torch.float32, family.observation_space.shape or ()),
        "actions": (torch.int64, ()) if discrete else (torch.float32, space.shape or ()),
        "rewards": (torch.float32, ()),
        **dict.fromkeys(("terminated", "truncated", "valid"), (torch.bool, ())),
    }
    data = {name: torch.zeros(1, count, horizon, *shape, dtype=kind) for name, (kind, shape) in shapes.items()}
    same = env.action_space == space
    for episode in range(count):
        obs = where.begin(env, key(episode))
        for t in range(horizon):
            data["obs"][0, episode, t] = torch.from_numpy(obs.astype(np.float32))
            action = act(data["obs"][:, episode : episode + 1, t], episode, t)
            data["actions"][0, episode, t] = action[0, 0]
            own = action[0, 0].numpy()
            if (own == NO_ACTION).any() or not np.isfinite(own).all():
                raise NonFiniteError(f"an action is not finite in {family.name}, after {t} steps of an episode")
            obs, reward, terminated, truncated = where.step(env, own if same else member(env.action_space, own))
            truncated = (truncated or t + 1 == horizon) and not terminated
            data["rewards"][0, episode, t] = reward
            data["terminated"][0, episode, t], data["truncated"][0, episode, t] = terminated, truncated
            data["valid"][0, episode, t] = True
            if terminated or truncated:
                break
    return Episodes(**data, unstable=torch.zeros(1, count, dtype=torch.bool))
