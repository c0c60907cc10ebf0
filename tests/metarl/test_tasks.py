"""Batches of tasks, and the rules of families and environments on a family whose every number is known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarl.errors import UserError
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks, TaskVectorEnv

GOALS = [[0.5, -0.25], [1.0, 2.0], [0.1, 0.2]]


@dataclass(frozen=True)
class Counting(TaskFamily):
    """The observation counts steps; the reward is the action plus the task's bonus; ends when the action is 3."""

    name: ClassVar[str] = "test/Counting-v0"
    presets: ClassVar[tuple[str, ...]] = ("short", "long")

    preset: str = "short"
    grains: int = 2**40  # a small number makes exact hits likely

    horizon = 4
    observation_space = Box(0, np.inf, (1,), np.float64)
    action_space = Discrete(4)
    splits = ("train", "test")

    def draw(self, n, uniform, split):
        return Tasks({"bonus": np.floor(uniform((n,)) * self.grains)})

    def make_vec(self, tasks, replicas=1, *, threads=1):
        return CountingEnv(self, tasks, replicas)


class CountingEnv(TaskVectorEnv):
    def _start(self, mask):
        self.count = np.where(mask, 0.0, getattr(self, "count", np.zeros(self.num_envs)))
        return self.count[:, None]

    def _advance(self, actions):
        self.count += 1  # in place: the caller must get a copy
        terms = {"reward_action": actions.astype(float), "reward_bonus": self.task["bonus"].copy()}
        return self.count[:, None], terms, actions == 3

    def render_frame(self, index):
        return np.full((2, 2, 3), int(self.count[index]), dtype=np.uint8)


# Tasks


def test_indexing():
    tasks = Tasks({"goal": GOALS, "arm": [4, 5, 6]})
    assert len(tasks) == 3
    assert tasks[1]["goal"].tolist() == [1.0, 2.0]
    assert tasks[-1]["arm"] == 6
    assert tasks[1:].arrays["arm"].tolist() == [5, 6]
    assert tasks[[2, 0]].arrays["arm"].tolist() == [6, 4]
    assert tasks[np.array([True, False, True])].arrays["goal"].tolist() == [GOALS[0], GOALS[2]]
    assert [int(task["arm"]) for task in tasks] == [4, 5, 6]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"task {index} of 3"):
            tasks[index]


def test_repeat_stack_and_repr():
    tasks = Tasks({"goal": GOALS})
    assert tasks.repeat(2)["goal"].tolist() == [goal for goal in GOALS for _ in range(2)]
    assert Tasks.stack(list(tasks)) == tasks
    assert repr(tasks) == "Tasks(3, {goal: (3, 2)})"


def test_hash_literal():
    tasks = Tasks({"goal": GOALS, "arm": np.array([4, 5, 6], dtype=np.int64)})
    assert tasks.sha256() == "4c89f321d436c779b2acdf996bf8bd97633c98c7315440501ef7d647b5b59c34"


def test_equality_is_by_content():
    tasks = Tasks({"goal": GOALS})
    again = Tasks({"goal": np.array(GOALS)})
    assert tasks == again
    assert hash(tasks) == hash(again)
    assert tasks == Tasks({"goal": np.array(GOALS, dtype=">f8")})  # byte order is not content
    different = [{"goal": GOALS[:2]}, {"aim": GOALS}, {"goal": np.array(GOALS, dtype=np.float32)}]
    assert all(tasks != Tasks(arrays) for arrays in different)
    assert tasks != GOALS


def test_a_batch_cannot_be_changed():
    source = np.array(GOALS)
    tasks = Tasks({"goal": source})
    source[:] = 9
    assert tasks.arrays["goal"].tolist() == GOALS
    with pytest.raises(ValueError, match="read-only"):
        tasks.arrays["goal"][0] = 9
    with pytest.raises(ValueError, match="read-only"):
        tasks[0]["goal"][0] = 9


@pytest.mark.parametrize("arrays", [{}, {"a": [1, 2], "b": [1]}, {"a": 3.0}])
def test_arrays_that_are_no_batch_are_refused(arrays):
    with pytest.raises(ValueError, match="one common first axis"):
        Tasks(arrays)


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements={"allow_nan": False},  # a task of NaN means nothing, and JSON has only one NaN
    )
)
def test_json_keeps_every_bit(values):
    tasks = Tasks({"a": values})
    again = Tasks.from_json(tasks.to_json())
    assert again.sha256() == tasks.sha256()
    assert again.arrays["a"].dtype == values.dtype


# Families


def test_fixed_tasks_are_rounded_so_that_every_cpu_has_the_same():
    class Logarithms(Counting):
        def draw(self, n, uniform, split):
            return Tasks({"bonus": np.log(uniform((n,)) + 1e-3)})

    values = Logarithms().fixed("test", 50).arrays["bonus"]
    np.testing.assert_array_equal(values, np.array([float(f"{v:.9f}") for v in values]))


def test_fixed_tasks_go_on_in_their_stream_when_a_draw_asks_twice():
    class Twice(Counting):
        def draw(self, n, uniform, split):
            return Tasks({"bonus": np.stack([uniform((n,)), uniform((n,))], axis=1)})

    pair = Twice().fixed("test", 20).arrays["bonus"]
    assert (pair[:, 0] != pair[:, 1]).all()


def test_options_and_splits_are_different_frozen_sequences():
    sets = [Counting().fixed("test", 5), Counting("long").fixed("test", 5), Counting().fixed("train", 5)]
    assert len({tasks.sha256() for tasks in sets}) == 3
    assert Counting().options() == {"preset": "short", "grains": 2**40}


def test_training_redraws_exact_hits_and_keeps_the_rest():
    family = Counting(grains=1100)  # about 600 of 1100 values are held out
    held_out = set(family.fixed("test", 1000).arrays["bonus"])
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    sampled, raw = family.sample(500, rng).arrays["bonus"], family.draw(500, again.random, "train").arrays["bonus"]
    hits = np.isin(raw, list(held_out))
    assert hits.sum() > 100, "nothing was tested"
    assert not held_out & set(sampled)
    np.testing.assert_array_equal(sampled[~hits], raw[~hits])


def test_a_family_without_unseen_tasks_redraws_nothing():
    class Reused(Counting):
        unseen = False

    family = Reused(grains=2)
    assert set(family.sample(50, np.random.default_rng(0)).arrays["bonus"]) == {0.0, 1.0}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no preset 'fast'; choose from short, long"):
        Counting("fast")
    with pytest.raises(ValueError, match="no split 'ood'; it has train, test"):
        Counting().fixed("ood", 1)


# Places and finite families


def test_tasks_keep_their_places():
    tasks = Counting().fixed("test", 6)
    assert (tasks.split, tasks.indices.tolist()) == ("test", [0, 1, 2, 3, 4, 5])
    some = tasks[2:5][[2, 0]]
    assert [some.place(t) for t in range(2)] == [("test", 4), ("test", 2)]
    assert some.cycled(3).indices.tolist() == [0, 1, 2]
    assert some.cycled(3).arrays["bonus"].tolist() == tasks.arrays["bonus"][[4, 2, 4]].tolist()
    assert Counting().sample(2, np.random.default_rng(0)).split == "train"
    again = Tasks.from_json(some.to_json())
    assert (again.split, again.indices.tolist()) == ("test", [4, 2])
    with pytest.raises(ValueError, match="6 tasks needs as many indices"):
        tasks.at("test", [1, 2])
    with pytest.raises(ValueError, match="indices from 0 on"):
        tasks.at("test", [-1, 0, 1, 2, 3, 4])


def test_the_streams_of_tasks_are_named_by_their_places():
    tasks = Counting().fixed("test", 6)
    draws = [[rng.random() for rng in some.streams(Key(0))] for some in (tasks, tasks[2:5], tasks.at("train"))]
    assert draws[1] == draws[0][2:5] == [rng.random() for rng in tasks.streams(Key(0), np.array([2, 3, 4]))]
    assert len({*draws[0], *draws[2], *(rng.random() for rng in tasks.streams(Key(1)))}) == 18


def test_a_finite_family_lists_its_tasks_once():
    class Reused(Counting):
        unseen = False

    family = Reused(grains=3)
    for split in family.splits:
        assert family.fixed(split, 40).arrays["bonus"].tolist() == [0.0, 1.0, 2.0]
        assert family.fixed(split, 40).split == split
    assert family.fixed("test", 2).arrays["bonus"].tolist() == [0.0, 1.0]
    assert Counting().finite("test") is None


def test_a_family_of_few_tasks_that_does_not_say_so_is_told_what_to_set():
    with pytest.raises(UserError, match="its tasks are few; set `unseen = False`"):
        Counting(grains=4).sample(2, np.random.default_rng(0))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_distinct_tasks_are_the_first_of_their_kind(values):
    tasks = Tasks({"a": np.array(values, dtype=float), "b": -np.array(values)})
    assert tasks.distinct().tolist() == [values.index(value) for value in values]


# Environments


def vector(replicas=2):
    return Counting().make_vec(Tasks({"bonus": [0.5, 10.0]}), replicas)


def test_rewards_and_ends_are_the_hand_computed_ones():
    env = vector()
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [[0.0]] * 4
    obs, reward, terminated, truncated, infos = env.step(np.array([0, 1, 2, 3]))
    assert reward.tolist() == [0.5, 1.5, 12.0, 13.0]
    assert infos["reward_bonus"].tolist() == [0.5, 0.5, 10.0, 10.0]
    assert terminated.tolist() == [False, False, False, True]
    assert not truncated.any()
    _, reward, terminated, *_ = env.step(np.array([3, 0, 0, 3]))
    assert reward.tolist() == [3.5, 0.5, 10.0, 0.0]
    assert terminated.tolist() == [True, False, False, False]
    env.step(np.zeros(4, dtype=int))
    later, reward, terminated, truncated, _ = env.step(np.array([0, 0, 3, 0]))  # a termination at the horizon
    assert reward.tolist() == [0.0, 0.5, 13.0, 0.0]
    assert terminated.tolist() == [False, False, True, False]
    assert truncated.tolist() == [False, True, False, False]
    assert obs.tolist() == [[1.0]] * 4, "an observation changed after it was returned"
    assert later.tolist() == [[4.0]] * 4


def test_tasks_may_be_exchanged_for_as_many():
    env = vector()
    env.reset(options={"tasks": Tasks({"bonus": [1.0, 2.0]})})
    assert env.step(np.zeros(4, dtype=int))[1].tolist() == [1.0, 1.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="runs 2 tasks, got 3"):
        env.reset(options={"tasks": Tasks({"bonus": [1.0, 2.0, 3.0]})})


def test_bad_arguments_of_vector_environments_are_refused():
    with pytest.raises(ValueError, match="at least one task and one replica, got 2 and 0"):
        vector(replicas=0)
    env = vector()
    with pytest.raises(ValueError, match="one integer seed"):
        env.reset(seed=[1, 2, 3, 4])
    for mask in (np.ones(4), [True] * 4, np.ones(3, dtype=bool)):
        with pytest.raises(ValueError, match=r"boolean array of shape \(4,\)"):
            env.reset(options={"reset_mask": mask})


def test_a_single_environment_wants_a_reset_first_and_renders_only_when_asked():
    env = Counting().make()
    with pytest.raises(RuntimeError, match="reset before step"):
        env.step(0)
    env.reset(seed=0)
    assert env.render() is None
    with pytest.raises(ValueError, match="render_mode 'human'"):
        Counting().make(render_mode="human")
    drawn = Counting().make({"bonus": 1}, render_mode="rgb_array")
    drawn.reset()
    drawn.step(1)
    assert drawn.render().tolist() == np.ones((2, 2, 3)).tolist()
    assert drawn.task["bonus"].dtype == np.float64


def test_a_task_given_at_construction_is_checked_like_one_given_at_reset():
    with pytest.raises(ValueError, match=r"has \['bonus'\]; \['bonus', 'goal'\] is not in both"):
        Counting().make({"goal": 1.0})
    with pytest.raises(ValueError, match=r"has shape \(\), got \(2,\)"):
        Counting().make({"bonus": [1.0, 2.0]})


@pytest.mark.parametrize(
    "damage",
    [
        "[]",
        "{",
        '{"arrays": {}}',
        '{"arrays": {"a": {"dtype": "O", "values": [1]}}, "split": "", "indices": [0]}',
        '{"arrays": {"a": {"dtype": "U1000000000", "values": ["x"]}}, "split": "", "indices": [0]}',
        '{"arrays": {"a": {"dtype": "<f8", "values": "x"}}, "split": "", "indices": [0]}',
        '{"arrays": {"a": {"dtype": "<i8", "values": [1e400]}}, "split": "", "indices": [0]}',
        '{"arrays": {"a": {"dtype": "<f8", "values": [[1], [1, 2]]}}, "split": "", "indices": [0, 1]}',
        '{"arrays": {"a": {"dtype": "<f8", "values": [1]}}, "split": "", "indices": [-1]}',
        '{"arrays": [], "split": "", "indices": []}',
    ],
)
def test_what_holds_no_tasks_is_refused(damage):
    with pytest.raises(ValueError, match="holds no tasks"):
        Tasks.from_json(damage)
