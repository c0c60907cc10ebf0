"""The one engine that steps every MuJoCo family: all tasks x all episodes in one `mujoco.batch.Batch`.

A family says which `Robot` it drives, what a step earns (`terms`), when an episode is over
(`fallen`) and, where tasks change the dynamics, which model fields differ (`physics`). The engine
does the rest, bit for bit as Gymnasium's v5 environments do on any number of threads, with these
deviations, common to all families:

- Contact forces are in neither observation nor reward: batched stepping does not reproduce them.
- A velocity is the displacement of the root coordinates in a step, over the time of that step
  (Gymnasium's Ant reads `xpos`, which is one substep behind; its Humanoid the centre of mass).
- Actions are in units of the actuator's bound and clipped to it.

**Instability.** MuJoCo resets a simulation whose state becomes NaN or huge, and goes on. Here that
episode ends: `terminated`, with `infos["unstable"]` true. Its last step earns 0, its last observation
is the one before it, and its neighbours notice nothing. The same happens to a simulation that any
other MuJoCo warning concerns (a singular inertia, ...), or that is faster than `LIMIT`.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from metarl.envs.mujoco.rendering import Scene, SceneRenderer
from metarl.envs.mujoco.robots import Robot, load_model
from metarl.errors import UserError
from metarl.tasks import Array, Task, TaskFamily, Tasks, TaskVectorEnv

LIMIT = 1e4  # no coordinate (m, rad) or velocity (m/s, rad/s) of these robots comes near it
ENGINE = ("_model", "_batch", "_failure", "qpos", "qvel", "_ctrl", "_derived", "_renderer")  # not in a copy


@dataclass(frozen=True)
class Motion:
    """What one step did in N simulations.

    Attributes:
        qpos: `(N, nq)` coordinates after the step, in m and rad.
        qvel: `(N, nv)` velocities after the step, in m/s and rad/s.
        velocity: `(N, root)` displacement of the root in the step, over its time, in m/s.
        action: `(N, nu)` the action taken, clipped, in units of the bound.
        control: `(N, nu)` the same in the model's units.
    """

    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    velocity: NDArray[np.float64]
    action: NDArray[np.float64]
    control: NDArray[np.float64]


@dataclass(frozen=True)
class MujocoFamily(TaskFamily):
    """A family whose tasks share a robot."""

    robot: ClassVar[Robot]
    steps_in_parallel: ClassVar[bool] = True

    @abstractmethod
    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The terms `(N,)` of the reward of a step.

        Args:
            task: the tasks' arrays, one row a simulation.
            motion: what the step did.
        """

    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """`(N,)` whether the step ends the episode; never, unless a family says otherwise."""
        return np.zeros(len(motion.qpos), dtype=bool)

    def physics(self, task: Mapping[str, Array], model: Any) -> Mapping[str, Array]:
        """MjModel fields `(N, ...)` in which the simulations differ; none unless a family says so."""
        return {}

    @property
    def observation_space(self) -> Box:
        """Coordinates without the hidden ones, velocities, then derived fields; SI units."""
        return Box(-np.inf, np.inf, (self.robot.observation_size,), np.float64)

    @property
    def action_space(self) -> Box:
        """A torque per actuator, in units of its bound."""
        return Box(-1.0, 1.0, (self.robot.sizes[2],), np.float32)

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> BatchedMujoco:
        """All tasks x replicas in one batch, stepped on `threads` threads.

        Raises:
            UserError: mujoco is missing or older than 3.17.
        """
        return BatchedMujoco(self, tasks, replicas, threads)

    @abstractmethod
    def caption(self, task: Task) -> str:
        """The task in words, written into pictures."""

    def heading(self, task: Task) -> NDArray[np.float64] | None:
        """The wanted velocity, or a unit vector in the wanted direction, `(2,)` along x and y; drawn as an arrow."""
        return None

    def place(self, task: Task) -> NDArray[np.float64] | None:
        """The place to be, `(2,)` in m; drawn as a post."""
        return None


def mujoco_batch() -> Any:
    """The module `mujoco.batch`.

    Raises:
        UserError: mujoco is missing or too old to have it.
    """
    try:
        return importlib.import_module("mujoco.batch")
    except ImportError as error:
        try:
            installed = f"mujoco {version('mujoco')}"
        except PackageNotFoundError:
            installed = "no mujoco"
        raise UserError(
            f"MuJoCo families are stepped by mujoco.batch, but {installed} is installed; "
            "install a newer one: pip install 'mujoco>=3.17'"
        ) from error


class BatchedMujoco(TaskVectorEnv):
    """N simulations of one robot in one batch; see the module for what an unstable one does.

    Attributes:
        qpos: `(N, nq)` coordinates, a live view: a write is the simulation's state at the next step.
        qvel: `(N, nv)` velocities, likewise.
    """

    def __init__(self, family: MujocoFamily, tasks: Tasks, replicas: int, threads: int = 1) -> None:
        super().__init__(family, tasks, replicas)
        if threads < 1:
            raise ValueError(f"need at least one thread, got {threads}")
        self._family, self.robot, self._threads = family, family.robot, threads
        self._connect()
        self._obs = np.zeros((self.num_envs, self.robot.observation_size))
        self._unstable = np.zeros(self.num_envs, dtype=bool)
        self._physics_of: Tasks | None = None
        self._path: deque[NDArray[np.float64]] = deque(maxlen=family.horizon)  # roots before each step, for pictures

    def _connect(self) -> None:
        """Make the engine, and the views into it."""
        module = mujoco_batch()
        self._model = load_model(self.robot.xml)
        self._batch = module.Batch(self._model, self.num_envs, self._threads)
        self._failure: type[Exception] = module.SimulationError
        self.qpos: NDArray[np.float64] = self._batch.bind("qpos")
        self.qvel: NDArray[np.float64] = self._batch.bind("qvel")
        self._ctrl: NDArray[np.float64] = self._batch.bind("ctrl")
        self._derived = [self._batch.bind(name)[:, first:] for name, first in self.robot.derived]
        self._bound: NDArray[np.float64] = self._model.actuator_ctrlrange[:, 1].copy()
        self._dt = float(self._model.opt.timestep) * self.robot.frame_skip
        self._renderer: SceneRenderer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the engine, of which a copy needs the simulations' states only."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ENGINE}
        return {**kept, "state": self._batch.state.copy()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state = kept.pop("state")
        self.__dict__.update(kept)
        self._connect()
        if self._physics_of is not None:
            self._set_physics(self._physics_of)
        self._batch.state[:] = state

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        if self._physics_of is not self.tasks:
            self._set_physics(self.tasks)
        self._unstable = self._unstable & ~mask
        ids = np.flatnonzero(mask)
        if ids.size:
            nq, nv, _ = self.robot.sizes
            noise = self._noise(self._draw_start, (nq + nv,), mask)[ids]
            self._batch.reset(ids=ids, stage=0)
            self.qpos[ids] = self._model.qpos0 + noise[:, :nq]
            self.qvel[ids] = noise[:, nq:]
            if self._derived:
                self._batch.forward(ids=ids)
        return self._observe(~mask)

    def _draw_start(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        (*rows, _), (nq, nv, _), noise = shape, self.robot.sizes, self.robot.noise
        qpos = rng.uniform(-noise, noise, (*rows, nq))
        normal = self.robot.normal
        qvel = noise * rng.standard_normal((*rows, nv)) if normal else rng.uniform(-noise, noise, (*rows, nv))
        return np.concatenate([qpos, qvel], axis=-1)

    def _set_physics(self, tasks: Tasks) -> None:
        fields = self._family.physics(tasks.repeat(self.replicas), self._model)
        for name, values in fields.items():
            self._batch.expand(name)[...] = values
        if fields:
            self._batch.set_const()
        self._physics_of = tasks

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        action = np.clip(actions.astype(np.float64), -1.0, 1.0)
        before = self.qpos[:, : self.robot.root].copy()
        self._path.append(before)
        self._ctrl[:] = control = self._bound * action
        self._unstable = self._step_physics(~self._ended)
        if self._unstable.any():
            self._batch.reset(ids=np.flatnonzero(self._unstable), stage=0)
        velocity = (self.qpos[:, : self.robot.root] - before) / self._dt
        motion = Motion(self.qpos, self.qvel, velocity, action, control)
        terms, over = self._family.terms(self.task, motion), self._family.fallen(motion) | self._unstable
        still = self._ended | self._unstable
        if still.any():
            terms = {name: np.where(still, 0.0, values) for name, values in terms.items()}
        return self._observe(still), terms, over

    def _step_physics(self, live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Step the `live` simulations; return which of all `(N,)` became unstable."""
        failed = np.zeros(self.num_envs, dtype=bool)
        ids = None if live.all() else np.flatnonzero(live)
        if ids is None or ids.size:
            try:
                self._batch.step(ids=ids, nstep=self.robot.frame_skip)
            except self._failure as error:
                failed[error.ids] = True  # type: ignore[attr-defined]  # mujoco.batch is untyped
        if self._batch.warning.any():
            failed |= self._batch.warning[:, :, 1].any(1)
        for field in (self.qpos, self.qvel, *self._derived):
            if not -LIMIT < field.min() <= field.max() < LIMIT:  # also when either is NaN
                failed |= ~(np.abs(field) < LIMIT).reshape(self.num_envs, -1).all(1)
        return failed & live

    def _observe(self, still: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Observations `(N, obs_dim)`, of which those that are `still` stay as they were."""
        velocity = self.qvel if np.isinf(self.robot.clip) else np.clip(self.qvel, -self.robot.clip, self.robot.clip)
        derived = [field.reshape(self.num_envs, -1) for field in self._derived]
        obs = np.concatenate([self.qpos[:, self.robot.hidden :], velocity, *derived], axis=1)
        if still.any():
            obs[still] = self._obs[still]
        self._obs = obs
        return obs

    def _info(self) -> dict[str, Array]:
        return {"unstable": self._unstable}

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """Simulation `index`, its target in green, where it came from in blue, task and speed in words.

        Raises:
            UserError: there is no OpenGL to draw with.
        """
        if self._renderer is None:
            self._renderer = SceneRenderer(self._model)
        task = {name: values[index] for name, values in self.task.items()}
        path = np.zeros((int(min(self.elapsed[index], len(self._path))) + 1, 2))  # where its root was, oldest first
        states = [*list(self._path)[len(self._path) - len(path) + 1 :], self.qpos]
        path[:, : self.robot.root] = [state[index, : self.robot.root] for state in states]
        scene = Scene(
            model=self._batch.get_model(index),
            data=self._batch.get_data(index),
            path=path,
            step_seconds=self._dt,
            in_plane=self.robot.root == 2,
            caption=self._family.caption(task),
            place=self._family.place(task),
            heading=self._family.heading(task),
        )
        return self._renderer.draw(scene)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
