"""Tasks as plain data, task families, and the environments that run a batch of tasks at once.

A family is a distribution over decision problems that share their spaces. A task is data, not code:
named arrays such as `{"goal": (2,)}`, so it can be saved, hashed, shown to an oracle or sent to
another process. `Tasks` is a frozen batch of them with the task axis first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.errors import NonFiniteError, UserError, shown
from metarl.seeding import Key

Array = NDArray[Any]
Task = Mapping[str, Array]
Uniform = Callable[[tuple[int, ...]], NDArray[np.float64]]

SPLITS = ("train", "validation", "test", "ood")
FROZEN = 1000  # tasks of each fixed split that training may never draw
REDRAWS = 1000  # rounds in which training tasks that equal a frozen one are drawn anew before a family counts as finite
LARGEST = float(np.finfo(np.float32).max)  # of rewards and observations: policies compute in float32
TERM = "reward_"  # how the names of the reward's terms begin, and no other names in infos
NUMBERS = "biufc"  # kinds of NumPy types
DECIMALS = 9  # of a frozen number: exp, log and powers differ in their last bits from one CPU to the next


class Tasks(Sequence[Task]):
    """A frozen batch of T tasks.

    Each task has a place: the split it is of and its index there. Random streams are named by places, so a task
    meets the same luck alone, in any batch, in any chunk and on any number of processes, and tasks of other
    splits meet other luck.

    Args:
        arrays: named arrays, each with the task axis first: `(T, ...)`.
        split: the split of all of them; "" where they are of none.
        indices: `(T,)`, their indices within the split; 0 to T - 1 by default.

    An integer index gives one task (a mapping without the task axis); a slice, a boolean mask or an
    integer array gives a smaller batch, whose tasks keep their places. Equality and hash are of the arrays only.

    Raises:
        ValueError: no array was given, their first axes differ, or `indices` is not one number from 0 on a task.
    """

    def __init__(self, arrays: Mapping[str, Any], *, split: str = "", indices: Any = None) -> None:
        frozen = {name: np.array(values) for name, values in sorted(arrays.items())}
        sizes = {values.shape[0] if values.ndim else -1 for values in frozen.values()}
        if len(sizes) != 1 or -1 in sizes:
            shapes = {name: values.shape for name, values in frozen.items()}
            raise ValueError(f"a batch of tasks needs arrays with one common first axis, got {shapes}")
        self._arrays = frozen
        self._size = sizes.pop()
        self._split = split
        self._indices = np.array(np.arange(self._size) if indices is None else indices, dtype=np.int64)
        if self._indices.shape != (self._size,) or (self._indices < 0).any():
            raise ValueError(f"a batch of {self._size} tasks needs as many indices from 0 on, got {self._indices}")
        for values in (*frozen.values(), self._indices):
            values.setflags(write=False)

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The named arrays, read-only, each `(T, ...)`."""
        return dict(self._arrays)

    @property
    def split(self) -> str:
        """The split they are of, "" where of none."""
        return self._split

    @property
    def indices(self) -> NDArray[np.int64]:
        """Their indices within the split `(T,)`, read-only."""
        return self._indices

    def place(self, t: int) -> tuple[str, int]:
        """Split and index of task t: the part of a stream's key that names the task."""
        return self._split, int(self._indices[t])

    def streams(self, key: Key, rows: NDArray[np.int64] | None = None) -> Iterator[np.random.Generator]:
        """The generator of every task, or of some `rows`, below a key: it depends on the task's place alone.

        Each serves only until the next is asked for (`Key.at`).
        """
        return key(self._split).at(self._indices if rows is None else self._indices[rows])

    def at(self, split: str, indices: Any = None) -> Tasks:
        """The same tasks in other places."""
        return Tasks(self._arrays, split=split, indices=indices)

    def cycled(self, n: int) -> Tasks:
        """These tasks in turn, over and over, until there are n, each in a place of its own."""
        return self[np.arange(n) % self._size].at(self._split)  # type: ignore[no-any-return]  # an array gives Tasks

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for values in (*self._arrays.values(), self._indices):  # a copy forgets that it is read-only
            values.setflags(write=False)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        """One task for an integer, a `Tasks` for anything else NumPy can index with."""
        if isinstance(index, (int, np.integer)):
            if not -self._size <= index < self._size:
                raise IndexError(f"task {index} of {self._size}")
            return {name: values[index] for name, values in self._arrays.items()}
        arrays = {name: values[index] for name, values in self._arrays.items()}
        return Tasks(arrays, split=self._split, indices=self._indices[index])

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(self._size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tasks) and self.sha256() == other.sha256()

    def __hash__(self) -> int:
        return hash(self.sha256())

    def __repr__(self) -> str:
        return f"Tasks({len(self)}, {{{', '.join(f'{n}: {v.shape}' for n, v in self._arrays.items())}}})"

    def repeat(self, n: int) -> Mapping[str, Array]:
        """Every task n times in a row, as arrays `(T * n, ...)`: the layout of `TaskVectorEnv`."""
        return {name: np.repeat(values, n, axis=0) for name, values in self._arrays.items()}

    def sha256(self) -> str:
        """A hash of names, types, shapes and values; what a saved curve is bound to."""
        digest = hashlib.sha256()
        for name, values in self._arrays.items():
            kind = values.dtype.newbyteorder("<")
            digest.update(f"{name} {kind.str} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())
        return digest.hexdigest()

    def distinct(self) -> NDArray[np.int64]:
        """For every task, the position of the first that equals it (to `DECIMALS`), `(T,)`."""
        first: dict[bytes, int] = {}
        return np.array([first.setdefault(row, t) for t, row in enumerate(_rows(self))], dtype=np.int64)

    def to_json(self) -> str:
        """The tasks and their places as JSON; floats are written with every digit."""
        arrays = {n: {"dtype": v.dtype.str, "values": v.tolist()} for n, v in self._arrays.items()}
        return json.dumps({"split": self._split, "indices": self._indices.tolist(), "arrays": arrays})

    @staticmethod
    def from_json(text: str) -> Tasks:
        """The inverse of `to_json`."""
        document = json.loads(text)
        arrays = {n: np.array(a["values"], dtype=a["dtype"]) for n, a in document["arrays"].items()}
        return Tasks(arrays, split=document["split"], indices=document["indices"])

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Tasks:
        """A batch of single tasks."""
        return Tasks({name: np.stack([task[name] for task in tasks]) for name in tasks[0]})


@dataclass(frozen=True)
class TaskFamily(ABC):
    """A distribution over tasks with common spaces.

    A concrete family is a frozen dataclass: its fields are its options (and, on the command line,
    its flags). Two families with equal fields are the same family.

    Attributes:
        preset: which source's definition is used; see the family's `presets`.
    """

    name: ClassVar[str]  # the Gymnasium id, "metarl/Navigation2D-v0"
    presets: ClassVar[tuple[str, ...]]  # allowed values of `preset`, the default first
    steps_in_parallel: ClassVar[bool] = False  # whether stepping lets go of the interpreter, so that threads help

    preset: str

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise ValueError(f"{self.name} has no preset {self.preset!r}; choose from {', '.join(self.presets)}")

    @property
    @abstractmethod
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""

    @property
    @abstractmethod
    def observation_space(self) -> gymnasium.Space[Any]:
        """What the agent sees in one environment."""

    @property
    @abstractmethod
    def action_space(self) -> gymnasium.Space[Any]:
        """What the agent may do: a Discrete that counts from 0, or a flat Box between -1 and 1.

        Policies, memories and baselines know these two; the family maps them to what its simulation takes
        (`GymFamily` does so for any bounded space). Policies are Gaussian, so what lies beyond 1 is clipped.
        """

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """The least and the greatest value of a task's arrays over all splits, by name; tasks beyond are refused.

        Each broadcasts against the array of one task. An array that is not named may hold any finite number.
        """
        return {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of train, validation, test and ood the family (under this preset) has."""
        return SPLITS

    @property
    def unseen(self) -> bool:
        """Whether test tasks differ from training tasks; False for a finite family, which reuses them."""
        return True

    def finite(self, split: str) -> Tasks | None:
        """Every task of a split, each once, where there are few enough to list; else None.

        By default a family with `unseen = False` lists the distinct tasks among `FROZEN` frozen draws, sorted. One
        that knows its tasks returns them, in the order in which they should be shown.
        """
        if self.unseen:
            return None
        drawn = self._drawn(split, FROZEN)
        several = drawn[np.unique(drawn.distinct())]
        columns = [values.reshape(len(several), -1) for values in several.arrays.values()]
        sorting = np.lexsort(np.concatenate(columns, axis=1).T[::-1])
        return several[sorting].at(split)  # type: ignore[no-any-return]  # an array gives Tasks

    @abstractmethod
    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n tasks of a split as a function of uniform numbers.

        Args:
            n: how many.
            uniform: called with a shape, returns numbers in [0, 1). Its only source of randomness.
            split: one of `splits`.
        """

    @abstractmethod
    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskVectorEnv:
        """All tasks x replicas as one vector environment; environment i runs task i // replicas.

        Args:
            tasks: T tasks.
            replicas: E environments a task.
            threads: worker threads where the stepping can use them; never changes results.
        """

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks. Training tasks never equal a frozen validation or test task (redrawn if they do).

        Raises:
            ValueError: the family has no such split.
            UserError: redrawing finds no training task apart from the frozen ones: it has too few.
        """
        self._check_split(split)
        arrays = {name: values.copy() for name, values in self.draw(n, rng.random, split).arrays.items()}
        if split == "train" and self.unseen:
            forbidden = _frozen_rows(self)
            for _ in range(REDRAWS):
                hits = [i for i, row in enumerate(_rows(Tasks(arrays))) if row in forbidden]
                if not hits:
                    break
                for name, values in self.draw(len(hits), rng.random, split).arrays.items():
                    arrays[name][hits] = values
            else:
                raise UserError(
                    f"{self.name}: {REDRAWS} draws in a row gave no training task apart from the frozen validation and "
                    "test tasks, so its tasks are few; set `unseen = False` in the family (tasks are then reused, and "
                    "every result says so), or draw test tasks that training does not have"
                )
        return Tasks(arrays, split=split)

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n tasks of the split's one frozen sequence: raw Philox bits, rounded to `DECIMALS`.

        A finite split has each of its tasks once: the first n of `finite`, so no more than there are.

        Raises:
            ValueError: the family has no such split.
        """
        self._check_split(split)
        every = self.finite(split)
        return self._drawn(split, n) if every is None else every[:n].at(split)

    def _drawn(self, split: str, n: int) -> Tasks:
        """The first n frozen draws of a split."""
        key = Key(0)("fixed", self.name, json.dumps(self.options(), sort_keys=True), split)
        exact = Tasks.stack([self.draw(1, key(i).uniforms(), split)[0] for i in range(n)])
        return Tasks({name: _rounded(values) for name, values in exact.arrays.items()}, split=split)

    def check_tasks(self, tasks: Tasks) -> None:
        """Check that these can be tasks of the family; every environment does so with the tasks it is given.

        Raises:
            ValueError: names, shapes or kinds are not those of the family's own tasks, or a number is not finite
                or beyond `bounds`.
        """
        like, arrays = _like(self).arrays, tasks.arrays
        if unlike := set(arrays) ^ set(like):
            raise ValueError(f"a task of {self.name} has {sorted(like)}; {sorted(unlike, key=str)} is not in both")
        for name, values in arrays.items():
            what = f"{name} of a task of {self.name}"
            if values.shape[1:] != like[name].shape[1:]:
                raise ValueError(f"{what} has shape {like[name].shape[1:]}, got {values.shape[1:]}")
            if not np.can_cast(values.dtype, like[name].dtype, "same_kind"):
                raise ValueError(f"{what} is of type {like[name].dtype}, got {values.dtype}")
            if values.dtype.kind in NUMBERS and not np.isfinite(values).all():
                raise ValueError(f"{what} must be finite, got {_first_row(values, ~np.isfinite(values))}")
            if name not in self.bounds:
                continue
            least, most = self.bounds[name]
            slack = 10.0**-DECIMALS * (1 + np.maximum(np.abs(least), np.abs(most)))  # frozen tasks are rounded
            beyond = ~((least - slack <= values) & (values <= most + slack))
            if beyond.any():
                raise ValueError(f"{what} lies between {least} and {most}, got {_first_row(values, beyond)}")

    def _check_listed(self, tasks: Tasks) -> None:
        """For `check_tasks` of a family that lists its tasks: ValueError unless each is in `finite` of some split."""
        lists = [listed for split in self.splits if (listed := self.finite(split)) is not None]
        for name, values in tasks.arrays.items():
            every = np.unique(np.concatenate([listed.arrays[name] for listed in lists]), axis=0)
            same = np.abs(values[:, None] - every) < 10.0**-DECIMALS  # (T, listed, ...)
            missing = ~same.reshape(len(values), len(every), -1).all(2).any(1)
            if missing.any():
                raise ValueError(
                    f"{name} of a task of {self.name} is one of {shown(every)}, got {_first_row(values, missing)}"
                )

    def make(self, task: Task | None = None, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """One Gymnasium environment. Without a task, each reset draws a training task."""
        return TaskEnv(self, task, render_mode)

    def options(self) -> dict[str, Any]:
        """The fields, preset included, as plain data; with `name` they identify the family."""
        return dataclasses.asdict(self)

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """A closed-form optimal controller where one is known, else None.

        Returns:
            A function from observations `(T, E, obs_dim)` to actions `(T, E, act_dim)`.
        """
        return None

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise ValueError(
                f"{self.name} (preset {self.preset}) has no split {split!r}; it has {', '.join(self.splits)}"
            )


def _rounded(values: Array) -> Array:
    """Floats to `DECIMALS`, without a negative zero; anything else unchanged."""
    return np.round(values, DECIMALS) + 0.0 if np.issubdtype(values.dtype, np.floating) else values


def _rows(tasks: Tasks) -> list[bytes]:
    arrays = [_rounded(values) for values in tasks.arrays.values()]
    return [b"".join(np.ascontiguousarray(values[i]).tobytes() for values in arrays) for i in range(len(tasks))]


def _within_float32(values: Array) -> bool:
    """Whether float32 can hold all of them."""
    return not values.size or bool(-LARGEST <= values.min() <= values.max() <= LARGEST)  # false when one is NaN


def _first_row(values: Array, wrong: NDArray[np.bool_]) -> str:
    """The first of T tasks' values in which something is wrong `(T, ...)`, in one line."""
    return shown(values[int(np.argmax(wrong.reshape(len(values), -1).any(1)))])


@cache
def _like(family: TaskFamily) -> Tasks:
    return family.fixed("train", 1)


@cache
def _frozen_rows(family: TaskFamily) -> frozenset[bytes]:
    held_out = [split for split in ("validation", "test") if split in family.splits]
    return frozenset(row for split in held_out for row in _rows(family.fixed(split, FROZEN)))


class TaskVectorEnv(VectorEnv[Any, Any, Any], ABC):
    """T tasks x E replicas stepped together; environment i runs task i // E.

    No autoreset: an episode that ends stays ended until `reset(options={"reset_mask": mask})`.
    Stepping an ended environment is allowed and yields reward 0 and no new end. `infos` holds the
    terms of the reward, each `(N,)`; their names, and no others, begin with `reward_`, and they sum to the
    reward. Beside them it may hold what else is known of the moment, arrays `(N,)`, such as MuJoCo's flag
    `unstable` or the infos of an environment of one's own. The tasks are in `tasks`.

    `step` takes actions `(N, *shape)` of the family's action space: integers of a Discrete, finite numbers of a
    Box, which families clip to its bounds. Whatever else it is given, it refuses.

    `reset(seed=s)` starts new keyed streams; a reset without a seed continues them. Options:
    `tasks` (a `Tasks` of the same size, to re-use the environment) and `reset_mask` `(N,)` bool; with
    both, the tasks of the environments that go on must be those they have.

    A copy or a pickle goes on as the original does, step for step.

    Streams are named by the task's place (`Tasks.place`), by how many episodes the row has begun since the streams
    began, and by the replica: a row's luck does not depend on the other tasks, on their number or order, or on when
    their episodes end. It may depend on the number of replicas.

    An observation or a reward that is NaN or infinite (in float32) is an error of the environment: a reset or a
    step that meets one raises NonFiniteError, which names the term, the step and the task.

    A subclass implements `_start` and `_advance`, and may use `task` (its tasks' arrays, repeated
    to N rows), `_noise`, and for streams of its own `_key`, `_episodes` and `_new_streams`.

    Raises:
        UserError: the family's action space is not as `TaskFamily.action_space` says.
        ValueError: the tasks are none of the family's (`TaskFamily.check_tasks`).
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, family: TaskFamily, tasks: Tasks, replicas: int) -> None:
        if replicas < 1 or len(tasks) < 1:
            raise ValueError(f"need at least one task and one replica, got {len(tasks)} and {replicas}")
        self.family = family
        self.replicas = replicas
        self.num_envs = len(tasks) * replicas
        self.single_observation_space = family.observation_space
        self.single_action_space = space = family.action_space
        self._action_shape = (self.num_envs, *(space.shape or ()))
        if isinstance(space, Discrete) and space.start == 0:
            self._choices = int(space.n)
        elif isinstance(space, Box) and len(space.shape) == 1 and (space.low == -1).all() and (space.high == 1).all():
            self._choices = 0
        else:
            raise UserError(
                f"{family.name}: its actions are {space}, but learners act in a Discrete that counts from 0 or a flat "
                "Box between -1 and 1; have the family map these to its own (GymFamily does, for most spaces)"
            )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = np.ones(self.num_envs, dtype=bool)
        self._key = Key(np.random.SeedSequence().generate_state(1, np.uint64).item())
        self._new_streams = True  # whether they begin with this reset
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)  # that rows have begun before, in these streams
        self._set_tasks(tasks)

    @property
    def tasks(self) -> Tasks:
        """The T tasks being run."""
        return self._tasks

    def _set_tasks(self, tasks: Tasks) -> None:
        if len(tasks) * self.replicas != self.num_envs:
            raise ValueError(f"this environment runs {self.num_envs // self.replicas} tasks, got {len(tasks)}")
        self.family.check_tasks(tasks)
        self._tasks = tasks
        self.task = tasks.repeat(self.replicas)

    @abstractmethod
    def _start(self, mask: NDArray[np.bool_]) -> Array:
        """Begin an episode where `mask` `(N,)` is true; return all observations `(N, obs_dim)`."""

    @abstractmethod
    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        """One step: observations `(N, obs_dim)`, terms `(N,)` of the reward by names `reward_...`, terminated `(N,)`.

        The actions are checked: int64 below the number of choices `(N,)`, or finite numbers `(N, A)`, which are
        clipped here to -1 and 1.
        """

    @abstractmethod
    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """A picture `(height, width, 3)` of environment `index`."""

    def _info(self) -> dict[str, Array]:
        """What else is known of the moment, arrays `(N,)` by name, for `infos`; no part of the reward."""
        return {}

    def _checked(self, actions: Array) -> Array:
        """The actions as an array that fits the action space.

        Raises:
            ValueError: they are of another shape or kind, not finite, or none of the choices.
            RuntimeError: nothing has been reset yet.
        """
        if self._new_streams:
            raise RuntimeError("call reset before step")
        actions = np.asarray(actions)
        if actions.shape == self._action_shape:
            if self._choices and actions.dtype.kind in "iu":
                actions = actions.astype(np.int64, copy=False)
                if not np.count_nonzero(actions.view(np.uint64) >= self._choices):  # as unsigned, negatives are large
                    return actions
            elif not self._choices and actions.dtype.kind in "fiu" and np.isfinite(actions).all():
                return actions
        wanted = f"integers from 0 to {self._choices - 1}" if self._choices else "finite numbers"
        raise ValueError(
            f"{self.family.name}: step takes {wanted} of shape {self._action_shape}, got {actions.dtype} of shape "
            f"{actions.shape}: {shown(actions)}"
        )

    def _noise(
        self,
        draw: Callable[[np.random.Generator, tuple[int, ...]], Array],
        shape: tuple[int, ...],
        mask: NDArray[np.bool_],
    ) -> Array:
        """Random numbers `(N, *shape)` for the episodes that begin where `mask` `(N,)` is true; for use in `_start`.

        The other rows are 0.
        """
        noise = np.zeros((len(self.tasks), self.replicas, *shape))
        for episode in np.unique(self._episodes[mask]):
            begun = (mask & (self._episodes == episode)).reshape(-1, self.replicas)
            rows = np.flatnonzero(begun.any(1))
            for t, rng in zip(rows, self.tasks.streams(self._key(int(episode)), rows), strict=True):
                noise[t][begun[t]] = draw(rng, (self.replicas, *shape))[begun[t]]
        return noise.reshape(self.num_envs, *shape)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes; see the class for `seed` and `options`."""
        options = _known(options, "tasks", "reset_mask")
        if isinstance(seed, list):
            raise ValueError("give one integer seed: the streams of all environments derive from it")
        if seed is not None:
            self._key, self._new_streams = Key(seed)("env"), True
            self._episodes[:] = 0
        mask, tasks = options.get("reset_mask"), options.get("tasks")
        if mask is None:
            mask = np.ones(self.num_envs, dtype=bool)
        elif not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be a boolean array of shape ({self.num_envs},), got {mask!r}")
        if tasks is not None:
            if len(tasks) == len(self.tasks) and not mask.all():
                new = tasks.repeat(self.replicas)
                if any((new[name][~mask] != held[~mask]).any() for name, held in self.task.items()):
                    raise ValueError("tasks differ where reset_mask is false: a row that goes on keeps its task")
            self._set_tasks(tasks)
        self.elapsed[mask] = 0
        self._ended[mask] = False
        obs = np.array(self._start(mask))
        self._new_streams = False
        self._episodes += mask
        if not _within_float32(obs):
            raise self._not_finite({"an observation": obs})
        return obs, self._info()

    def step(
        self, actions: Array
    ) -> tuple[Array, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every environment: observations, rewards, terminated, truncated, infos; see the class."""
        obs, terms, terminated = self._advance(self._checked(actions))
        self.elapsed += 1
        truncated = (self.elapsed >= self.family.horizon) & ~terminated
        if self._ended.any():
            live = ~self._ended
            terms = {name: np.where(live, values, 0.0) for name, values in terms.items()}
            terminated &= live
            truncated &= live
        self._ended |= terminated | truncated
        rewards = np.zeros(self.num_envs)
        for name, values in terms.items():
            if not name.startswith(TERM):
                raise ValueError(f"{self.family.name}: the names of the reward's terms begin with {TERM}, got {name!r}")
            rewards += values
        if not (_within_float32(rewards) and _within_float32(obs)):
            raise self._not_finite({**terms, "the reward": rewards, "an observation": obs})
        return np.array(obs), rewards, terminated, truncated, {**terms, **self._info()}

    def _not_finite(self, numbers: Mapping[str, Array]) -> NonFiniteError:
        """The error of the first of some numbers, each `(N, ...)`, that are not all finite."""
        name, values = next((name, values) for name, values in numbers.items() if not _within_float32(values))
        rows = values.reshape(self.num_envs, -1)
        row, column = np.argwhere(~(np.abs(rows) <= LARGEST))[0]
        place = f" (number {column} of it)" if values.ndim > 1 else ""
        return self.non_finite(f"{name}{place} of {self.family.name} is {rows[row, column]}", row, environment=True)

    def non_finite(self, what: str, row: int, *, environment: bool = False) -> NonFiniteError:
        """The error of a number that is not finite, with the step and the task of row `row`.

        Args:
            what: which number is what.
            row: in 0..N-1.
            environment: whether the environment gave it, not whoever acts.
        """
        t, steps = int(row) // self.replicas, int(self.elapsed[row])
        when = f"in step {steps} of an episode" if steps else "at the start of an episode"
        return NonFiniteError(
            f"{what} {when}",
            tasks=[int(self.tasks.indices[t])],
            of=len(self.tasks),
            task=self.tasks[[t]].arrays,
            data={"episode": int(row) % self.replicas, "step": steps},
            environment=environment,
            row=int(row),
        )


def _known(options: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """The options of a reset; ValueError if any has another name."""
    options = options or {}
    if unknown := sorted(set(options) - set(names), key=str):
        raise ValueError(f"reset knows the options {', '.join(names)}, got {', '.join(map(str, unknown))}")
    return options


class TaskEnv(gymnasium.Env[Any, Any]):
    """One environment of a family: the vector environment with a single row.

    `reset(options={"task": task})` chooses the task; otherwise the task given at construction is
    kept, and without one every reset draws a training task. `info` holds the reward's terms (`reward_...`,
    which sum to the reward), what else the family says of the moment, and the task as `info["task"]`.

    Raises:
        ValueError: a task is none of the family's (`TaskFamily.check_tasks`).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, family: TaskFamily, task: Task | None = None, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}: choose from {self.metadata['render_modes']} or None")
        self.family = family
        self.render_mode = render_mode
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self._own = self._checked(task) if task is not None else None
        self.vector = family.make_vec(self._own or _like(family), 1)

    @property
    def task(self) -> Task:
        """The task being run."""
        task: Task = self.vector.tasks[0]
        return task

    def _checked(self, task: Any) -> Tasks:
        """A batch of this one task, in the family's types; ValueError if it is not one of the family's."""
        like = _like(self.family).arrays
        if not isinstance(task, Mapping) or not task:
            raise ValueError(f"a task of {self.family.name} is a mapping with {sorted(like)}, got {shown(task)}")
        try:
            tasks = Tasks({str(name): np.asarray(values)[None] for name, values in task.items()})
        except ValueError as error:
            raise ValueError(f"a task of {self.family.name} holds arrays, got {shown(task)} ({error})") from error
        self.family.check_tasks(tasks)
        arrays = tasks.arrays
        return Tasks({n: v.astype(like[n].dtype) if v.dtype.kind in NUMBERS else v for n, v in arrays.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `options={"task": ...}` sets its task."""
        super().reset(seed=seed)
        asked = _known(options, "task").get("task")
        tasks = self._own if asked is None else self._checked(asked)
        if tasks is None:
            tasks = self.family.sample(1, self.np_random)
        obs, infos = self.vector.reset(seed=int(self.np_random.integers(2**62)), options={"tasks": tasks})
        return obs[0].copy(), self._said(infos)

    def _said(self, infos: dict[str, Array]) -> dict[str, Any]:
        task = {name: values.copy() for name, values in self.task.items()}
        return {**{name: values.item(0) for name, values in infos.items()}, "task": task}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; raises RuntimeError before the first reset, ValueError for an action `TaskVectorEnv` refuses."""
        action = np.asarray(action)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"{self.family.name}: step takes an action of shape {self.action_space.shape}, got {action.dtype} of "
                f"shape {action.shape}: {shown(action)}"
            )
        obs, rewards, terminated, truncated, infos = self.vector.step(action[None])
        return obs[0].copy(), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), self._said(infos)

    def render(self) -> Any:
        """An RGB picture `(height, width, 3)` uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.vector.render_frame(0)

    def close(self) -> None:
        """Release the vector environment."""
        self.vector.close()
