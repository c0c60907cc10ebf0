"""Trials: several episodes of one task in a row, joined into one, for agents that learn in their memory.

The protocol of RL² (Duan et al. 2016; Wang et al. 2016). The agent observes, besides what the task shows,
its previous action, the previous reward, and whether an episode has just ended. When an inner episode
ends, terminated or truncated, the next begins at once, and the observation is the first of the new
episode. Only the end of the last one ends the trial, and that end is terminal: nothing is left to
bootstrap from.

    env = RL2Env(make_family("metarl/TabularMDP-v0"))   # one Gymnasium environment
    vec = Trials(family=family, episodes=4).make_vec(tasks, replicas)   # all at once
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from metarl.envs.wrappers.wrapper import FamilyWrapper, split_infos
from metarl.errors import UserError
from metarl.tasks import Array, Task, TaskEnv, TaskFamily, Tasks, TaskVectorEnv
from metarl.tasks.spaces import described

EPISODES = 2  # a trial of a family that does not say; VariBAD's trials of MuJoCo families have 2


def trial_episodes(family: TaskFamily) -> int:
    """The inner episodes of a trial: the family's `episodes` where it has such an option, else 2."""
    return int(getattr(family, "episodes", EPISODES))


@dataclass(frozen=True)
class Trials(FamilyWrapper):
    """Any family as trials: the same tasks, with longer episodes and a richer observation.

    The observation is `[observation, previous action (one-hot, or clipped to its bounds), previous
    reward, 1 if an episode has just ended]`; the last three parts are 0 at the start of a trial.

    Attributes:
        family: whose tasks they are. Box observations of one axis; actions as `TaskFamily.action_space` says.
        episodes: inner episodes a trial; 0 takes the family's own number (`trial_episodes`).

    Raises:
        UserError: the family's spaces are of another kind.
        ValueError: `episodes` is negative.
    """

    name: ClassVar[str] = "metarl/Trials"
    presets: ClassVar[tuple[str, ...]] = ("duan2016",)
    steps_in_parallel: ClassVar[bool] = True  # whatever the family: who acts in trials has a memory to compute

    preset: str = "duan2016"
    episodes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 0:
            raise ValueError(f"a trial has at least one episode, got {self.episodes}; 0 takes the family's own number")
        if not self.episodes:
            object.__setattr__(self, "episodes", trial_episodes(self.family))
        obs, act = self.family.observation_space, self.family.action_space
        if not isinstance(obs, Box) or len(obs.shape) != 1 or not isinstance(act, (Box, Discrete)):
            raise UserError(
                f"{self.family.name}: trials need flat Box observations and Box or Discrete actions, got {obs} "
                f"and {act}"
            )

    @property
    def horizon(self) -> int:
        """The most steps of a trial; shorter where inner episodes terminate early."""
        return self.episodes * self.family.horizon

    @property
    def action_size(self) -> int:
        """Numbers that describe the previous action."""
        space = self.family.action_space
        return int(space.n) if isinstance(space, Discrete) else int(np.prod(space.shape or ()))

    @property
    def observation_space(self) -> Box:
        """`(obs_dim + action_size + 2,)`."""
        inner, size = self.family.observation_space, self.action_size
        assert isinstance(inner, Box)
        least = 0.0 if isinstance(self.family.action_space, Discrete) else -1.0
        return Box(
            np.concatenate([inner.low, np.full(size, least), [-np.inf, 0.0]]).astype(np.float64),
            np.concatenate([inner.high, np.ones(size), [np.inf, 1.0]]).astype(np.float64),
            dtype=np.float64,
        )

    def options(self) -> dict[str, Any]:
        """The family's name and options, and the episodes of a trial."""
        return {**super().options(), "episodes": self.episodes}

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TrialVectorEnv:
        """All tasks x replicas, each a trial."""
        return TrialVectorEnv(self, tasks, replicas, self.family.make_vec(tasks, replicas, threads=threads))


class TrialVectorEnv(TaskVectorEnv):
    """N trials stepped at once.

    Attributes:
        inner: the environment whose episodes are joined.
        episode: `(N,)`, how many inner episodes of this trial have ended.
    """

    family: Trials

    def __init__(self, family: Trials, tasks: Tasks, replicas: int, inner: TaskVectorEnv) -> None:
        self.inner = inner
        super().__init__(family, tasks, replicas)
        self.episode = np.zeros(self.num_envs, dtype=np.int64)
        self._inner_info: dict[str, Array] = {}
        self._seen = np.zeros((self.num_envs, *(self.single_observation_space.shape or ())))
        self._obs_size = inner.single_observation_space.shape[0] if inner.single_observation_space.shape else 0

    def _set_tasks(self, tasks: Tasks) -> None:
        super()._set_tasks(tasks)
        self.inner._set_tasks(tasks)

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        seed = self._key("inner").integer() if self._new_streams else None
        self.episode[mask] = 0
        inner, self._inner_info = self.inner.reset(seed=seed, options={"reset_mask": mask})
        self._seen[mask] = 0.0
        self._seen[mask, : self._obs_size] = inner[mask]
        return self._seen.copy()

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        obs, rewards, terminated, truncated, infos = self.inner.step(actions)
        terms, self._inner_info = split_infos(infos)
        ended = terminated | truncated
        self.episode += ended
        over = self.episode >= self.family.episodes
        if (again := ended & ~over).any():
            fresh, _ = self.inner.reset(options={"reset_mask": again})
            obs = np.where(again[:, None], fresh, obs)
        seen = np.zeros_like(self._seen)
        seen[:, : self._obs_size] = obs
        seen[:, self._obs_size : -2] = described(self.inner.single_action_space, actions)
        seen[:, -2] = rewards
        seen[:, -1] = ended
        self._seen = seen
        return seen.copy(), terms, over

    def _info(self) -> dict[str, Array]:
        return self._inner_info

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The inner environment's picture."""
        return self.inner.render_frame(index)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the inner environment."""
        self.inner.close()


class RL2Env(TaskEnv):
    """A family as one Gymnasium environment whose episodes are trials, for any recurrent learner.

    With sb3-contrib's, for one:

        family = make_family("metarl/BernoulliBandit-v0")
        envs = make_vec_env(lambda: RL2Env(family), n_envs=64, seed=0)
        RecurrentPPO("MlpLstmPolicy", envs, n_steps=family.horizon, batch_size=640).learn(100_000)

    Args:
        family: whose tasks they are.
        episodes: inner episodes a trial; 0 takes the family's own number (`trial_episodes`).
        task: keep to this task; without it every reset draws a training task.
        render_mode: "rgb_array" or None.
    """

    def __init__(
        self, family: TaskFamily, episodes: int = 0, task: Task | None = None, render_mode: str | None = None
    ) -> None:
        super().__init__(Trials(family=family, episodes=episodes), task, render_mode)
