"""Parameterised Gymnasium task families; installed and imported as `metarl.envs`.

Importing this package registers every family with Gymnasium:

    import gymnasium, metarl.envs
    env = gymnasium.make("metarl/Navigation2D-v0", preset="pearl")
    env.reset(options={"task": {"goal": [0.3, -0.2]}})
"""

if __name__ != "metarl.envs":
    raise ImportError("import metarl.envs, not envs: the bare name collides with published packages")

import importlib
from typing import Any

import gymnasium

from metarl.tasks import Task, TaskFamily, Tasks, TaskVectorEnv

# id -> the module below metarl.envs and the class in it. Modules load when a family is asked for.
FAMILIES: dict[str, tuple[str, str]] = {
    "metarl/Navigation2D-v0": ("navigation", "Navigation2D"),
    "metarl/GridNavigation-v0": ("grid", "GridNavigation"),
    "metarl/BernoulliBandit-v0": ("bandit", "BernoulliBandit"),
    "metarl/GaussianBandit-v0": ("bandit", "GaussianBandit"),
    "metarl/TabularMDP-v0": ("tabular_mdp", "TabularMDP"),
    "metarl/HalfCheetahVelocity-v0": ("half_cheetah", "HalfCheetahVelocity"),
    "metarl/HalfCheetahDirection-v0": ("half_cheetah", "HalfCheetahDirection"),
    "metarl/AntVelocity-v0": ("ant", "AntVelocity"),
    "metarl/AntDirection-v0": ("ant", "AntDirection"),
    "metarl/AntDirection2D-v0": ("ant", "AntDirection2D"),
    "metarl/AntGoal-v0": ("ant", "AntGoal"),
    "metarl/HumanoidDirection2D-v0": ("humanoid", "HumanoidDirection2D"),
    "metarl/WalkerRandomParams-v0": ("random_params", "WalkerRandomParams"),
    "metarl/HopperRandomParams-v0": ("random_params", "HopperRandomParams"),
}


def family_class(name: str) -> type[TaskFamily]:
    """The class of a family by its id.

    Raises:
        KeyError: there is no such family.
    """
    module, attribute = FAMILIES[name]
    family: type[TaskFamily] = getattr(importlib.import_module(f"metarl.envs.{module}"), attribute)
    return family


def make_family(name: str, preset: str | None = None, **options: Any) -> TaskFamily:
    """A family by its id; the preset and options default to its own.

    Raises:
        KeyError: there is no such family.
        ValueError: no such preset, or an option out of range.
        TypeError: no such option.
    """
    if preset is not None:
        options["preset"] = preset
    return family_class(name)(**options)


def make_env(
    family: str, preset: str | None = None, task: Task | None = None, render_mode: str | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """The entry point behind `gymnasium.make`."""
    return make_family(family, preset, **options).make(task, render_mode)


def make_vector_env(
    family: str,
    num_envs: int = 1,
    preset: str | None = None,
    tasks: Tasks | None = None,
    threads: int = 1,
    **options: Any,
) -> TaskVectorEnv:
    """The entry point behind `gymnasium.make_vec`: by default `num_envs` frozen training tasks, one each.

    A finite family has its tasks in turn, over and over.

    Given T tasks, `num_envs` is 1 (Gymnasium's default: one environment a task) or a multiple of T.

    Raises:
        ValueError: `num_envs` is not a multiple of the number of tasks.
    """
    made = make_family(family, preset, **options)
    if tasks is None:
        return made.make_vec(made.fixed("train", num_envs).cycled(num_envs), threads=threads)
    if num_envs != 1 and num_envs % len(tasks):
        raise ValueError(f"num_envs must be a multiple of the {len(tasks)} tasks given, got {num_envs}")
    return made.make_vec(tasks, max(1, num_envs // len(tasks)), threads=threads)


for _name in FAMILIES:
    if _name not in gymnasium.registry:
        gymnasium.register(
            _name,
            entry_point="metarl.envs:make_env",
            vector_entry_point="metarl.envs:make_vector_env",
            kwargs={"family": _name},
        )
