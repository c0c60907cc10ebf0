"""Task families for Stable-Baselines3: a `TaskVectorEnv` as its `VecEnv`.

    vec = SB3VecEnv(family.make_vec(family.fixed("train", 40)), mixture=True)
    PPO("MlpPolicy", VecMonitor(vec)).learn(100_000)

Stable-Baselines3 expects an environment that ends to begin anew within the same step: the observation
returned is the new episode's first, the old one's last is in `info["terminal_observation"]`, and
`info["TimeLimit.truncated"]` says that it was cut off, so that its value is bootstrapped. This is the only
place in metarl where environments reset themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from metarl.seeding import Key
from metarl.tasks import Array, Tasks, TaskVectorEnv


class SB3VecEnv(VecEnv):
    """Every row of a `TaskVectorEnv` as one of Stable-Baselines3's environments.

    Args:
        env: the environment to run; closing this closes it.
        render_mode: "rgb_array" for `render()` to tile the rows' pictures, or None.
        mixture: every episode has a fresh training task of the family; else row i keeps its task.

    `seed(s)` takes effect at the next reset; all streams, those of the tasks too, derive from that one seed.

    Raises:
        ValueError: a mixture of an environment with replicas, whose rows cannot change tasks one by one.
    """

    def __init__(self, env: TaskVectorEnv, render_mode: str | None = None, *, mixture: bool = False) -> None:
        if mixture and env.replicas != 1:
            raise ValueError(f"a mixture needs one row a task, got {env.replicas} replicas")
        self.env = env
        self.render_mode = render_mode
        self.mixture = mixture
        self._actions: Array = np.zeros(0)
        self._key = Key(np.random.SeedSequence().generate_state(1, np.uint64).item())("mixture")
        self._draws = np.zeros(env.num_envs, dtype=np.int64)  # tasks that each row has had
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Array:
        """Begin an episode in every row; the first observations `(N, ...)`."""
        seed = self._seeds[0]
        if seed is not None:
            self._key, self._draws = Key(seed)("mixture"), np.zeros_like(self._draws)
        obs, _ = self.env.reset(seed=seed, options=self._fresh_tasks(np.ones(self.num_envs, bool)))
        self._reset_seeds()
        self._reset_options()
        return obs

    def _fresh_tasks(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Options of a reset that begins episodes where `mask` is true."""
        if not self.mixture:
            return {"reset_mask": mask}
        arrays = {name: values.copy() for name, values in self.env.tasks.arrays.items()}
        for i in map(int, np.flatnonzero(mask)):  # a row's tasks do not depend on when the others' episodes end
            drawn = self.env.family.sample(1, self._key(i, int(self._draws[i])).numpy()).arrays
            for name, values in arrays.items():
                values[i] = drawn[name][0]
        self._draws[mask] += 1
        return {"reset_mask": mask, "tasks": Tasks(arrays, split="train")}

    def step_async(self, actions: Array) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """One step: observations, rewards (float32), dones, and an info a row; ended rows begin anew."""
        obs, rewards, terminated, truncated, terms = self.env.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [
            dict(zip(terms, row, strict=True)) for row in zip(*(v.tolist() for v in terms.values()), strict=True)
        ]
        for i, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[i])
            if done[i]:
                info["terminal_observation"] = obs[i].copy()
        if done.any():
            obs, _ = self.env.reset(options=self._fresh_tasks(done))
        return obs, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[Array | None]:
        """A picture of every row."""
        return [self.env.render_frame(i) for i in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """An attribute of the environment, once for each row asked for."""
        owner = self if attr_name == "render_mode" else self.env
        return [getattr(owner, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set an attribute of the environment; all rows share it."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the environment, once; its result for each row asked for."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: int | Iterable[int] | None = None) -> list[bool]:
        """False: no row is in a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]
