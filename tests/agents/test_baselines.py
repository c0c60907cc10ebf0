from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from metarl.agents.baselines import Oracle, Random, StandStill
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning import non_adaptive as fixed
from metarl.learning.contract import Budget
from metarl.learning.non_adaptive import Fixed
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv, Uniform

ALL: list[type[Fixed]] = [Random, StandStill, Oracle]


def navigation(preset: str = "maml2017") -> TaskFamily:
    return make_family("metarl/Navigation2D-v0", preset)


class CountingEnv(TaskVectorEnv):
    """Pays 1 for the task's arm; the episode ends early when the arm is 0 and was chosen."""

    def _start(self, mask: Array) -> Array:
        return np.zeros((self.num_envs, 1))

    def _advance(self, actions: Array) -> tuple[Array, dict[str, Array], Array]:
        right = np.asarray(actions == self.task["arm"])
        return np.zeros((self.num_envs, 1)), {"reward_arm": right.astype(float)}, right & (self.task["arm"] == 0)

    def render_frame(self, index: int) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class Arms(TaskFamily):
    name: ClassVar[str] = "test/Arms-v0"
    presets: ClassVar[tuple[str, ...]] = ("plain",)
    preset: str = "plain"
    horizon: ClassVar[int] = 8  # type: ignore[assignment]  # a constant will do here
    observation_space: ClassVar[gymnasium.Space[Any]] = Box(-1, 1, (1,))  # type: ignore[assignment]  # the same
    action_space: ClassVar[gymnasium.Space[Any]] = Discrete(4)  # type: ignore[assignment]  # the same

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        return Tasks({"arm": (4 * uniform((n,))).astype(np.int64)})

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskVectorEnv:
        return CountingEnv(self, tasks, replicas)


@pytest.mark.parametrize("agent", ALL)
@pytest.mark.parametrize("preset", ["maml2017", "pearl", "varibad"])
def test_scores_have_the_contract_s_shape_and_repeat(agent: type[Fixed], preset: str) -> None:
    family = navigation(preset)
    tasks = family.fixed("test", 5)
    once, again = (agent(family).curve(tasks, Budget(2, 3), seed=7) for _ in range(2))
    assert once.values.shape == (5, 3)
    assert once.values.dtype == np.float64
    assert np.isfinite(once.values).all()
    assert (once.gradient_steps, once.env_steps, once.shots, once.kind) == (None, None, None, "return")
    assert np.array_equal(once.values, again.values)


def test_standing_still_costs_the_distance_at_every_step() -> None:
    tasks = Tasks({"goal": np.array([[0.3, 0.4], [0.0, -0.2]])})
    values = StandStill(navigation()).curve(tasks, Budget(1, 2), seed=0).values
    assert values == pytest.approx(np.array([[-50.0, -50.0], [-20.0, -20.0]]), rel=1e-6)


def test_oracle_walks_straight_to_the_goal() -> None:
    # From 0 to .25 in steps of .1: gaps .15 and .05, then 0 and the episode ends.
    tasks = Tasks({"goal": np.array([[0.25, 0.0], [0.1, 0.1]])})
    values = Oracle(navigation()).curve(tasks, Budget(0, 1), seed=0).values
    assert values == pytest.approx(np.array([[-0.2], [0.0]]), abs=1e-5)


def test_oracle_beats_standing_still_beats_random_on_frozen_goals() -> None:
    family = navigation()
    tasks = family.fixed("test", 40)
    means = [agent(family).curve(tasks, Budget(0, 10), seed=0).values.mean() for agent in (Oracle, StandStill, Random)]
    assert means[0] > -1.0
    assert means[0] > means[1] > means[2]


def test_random_is_uniform_over_a_discrete_space() -> None:
    # Arm 1..3 pays a quarter of 8 steps: mean 2, variance 8 * 3/16 an episode.
    tasks = Tasks({"arm": np.array([1, 2, 3])})
    values = Random(Arms()).curve(tasks, Budget(0, 4000), seed=1).values
    assert values == pytest.approx(np.full((3, 1), 2.0), abs=5 * np.sqrt(1.5 / 4000))


def test_random_is_uniform_over_a_box() -> None:
    family = navigation()
    control = Random(family).controller(family.fixed("test", 2), 500, Key(3))
    actions = np.stack([control(np.zeros((2, 500, 2)), t) for t in range(family.horizon)])
    assert actions.shape == (100, 2, 500, 2)
    assert np.abs(actions).max() <= 1.0
    assert actions.mean() == pytest.approx(0.0, abs=0.01)
    assert actions.var() == pytest.approx(1 / 3, abs=0.01)


def test_rewards_after_an_early_end_do_not_count() -> None:
    # Arm 0 pays once and ends the episode: the return is 1 unless it is missed 8 times.
    tasks = Tasks({"arm": np.zeros(1, np.int64)})
    values = Random(Arms()).curve(tasks, Budget(0, 4000), seed=2).values
    assert values.item() == pytest.approx(1 - 0.75**8, abs=5 * np.sqrt(0.1 / 4000))


def test_every_score_and_every_seed_uses_fresh_episodes() -> None:
    family = navigation()
    tasks = family.fixed("test", 2)
    values = Random(family).curve(tasks, Budget(2, 2), seed=0).values
    assert len(np.unique(values)) == values.size
    assert not np.isin(Random(family).curve(tasks, Budget(2, 2), seed=1).values, values).any()


@pytest.mark.parametrize("agent", ALL)
def test_batches_of_tasks_leave_out_none(agent: type[Fixed], monkeypatch: pytest.MonkeyPatch) -> None:
    family = navigation("varibad")
    tasks = family.fixed("test", 5)
    whole = agent(family).curve(tasks, Budget(0, 2), seed=0).values
    monkeypatch.setattr(fixed, "BATCH", 2 * 2 * family.horizon)
    parts = agent(family).curve(tasks, Budget(0, 2), seed=0).values
    assert parts.shape == whole.shape
    if agent is not Random:
        assert np.array_equal(parts, whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Oracle(navigation("promp")), r"no optimal policy is known .*preset promp"),
        (lambda: StandStill(Arms()), "nobody can stand still in test/Arms-v0"),
    ],
)
def test_what_a_family_does_not_allow_is_a_clear_error(make: Callable[[], Fixed], message: str) -> None:
    agent = make()
    with pytest.raises(UserError, match=message):
        agent.curve(agent.family.fixed("test", 1), Budget(0, 1), seed=0)


@pytest.mark.parametrize("agent", ALL)
def test_a_data_set_is_no_place_to_act(agent: type[Fixed]) -> None:
    with pytest.raises(UserError, match="acts in environments"):
        agent("sinusoid")  # type: ignore[arg-type]  # the mistake being tested


def test_baselines_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Random(navigation()).family = navigation()  # type: ignore[misc]  # the mistake being tested
