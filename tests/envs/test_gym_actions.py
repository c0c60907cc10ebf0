"""What environments of one's own are given, and what they may give: over generated spaces and rewards."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarl.agents import maml_trpo, rl2
from metarl.agents.baselines import Random
from metarl.envs.wrappers.gym_family import GymFamily
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.tasks import TaskFamily, Tasks, TaskVectorEnv
from metarl.tasks.spaces import member, offered

HORIZON = 4
GIVEN: list[tuple[Any, Any]] = []  # (space, action) of every step of a `Picky`


class Picky(gymnasium.Env):
    """Notes what it is given; pays what the script says, and ends where it says."""

    observation_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space, script=(1.0,), ends=(), task=0.0):
        self.action_space = action_space
        self.script, self.ends, self.task, self.steps = script, ends, task, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {"steps": 0, "who": "me"}

    def step(self, action):
        GIVEN.append((self.action_space, action))
        reward = self.script[self.steps % len(self.script)] + self.task
        self.steps += 1
        info = {"steps": self.steps, "who": "me", "reward_env": "own", "reward_part": 0.5, "task": 3, "unstable": "no"}
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, reward, self.steps in self.ends, False, info


@dataclass(frozen=True)
class Family(GymFamily):
    """Environments of a class and options; the task is added to the reward."""

    name: ClassVar[str] = "mine/Family-v0"
    presets: ClassVar[tuple[str, ...]] = ("mine",)
    preset: str = "mine"
    make_one: Any = field(default=None, compare=False)
    horizon: int = HORIZON

    def draw(self, n, uniform, split):
        return Tasks({"bonus": uniform((n,))})

    def options(self):
        return {"preset": self.preset}

    def build(self, task):
        return self.make_one(float(task["bonus"]))


def picky(space, **options):
    return Family(make_one=lambda bonus: Picky(space, task=bonus, **options))


# Spaces


@st.composite
def boxes(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64]))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 1)]))
    limits = (-100, 100) if np.issubdtype(dtype, np.signedinteger) else (0, 200) if dtype == np.uint8 else (-50, 50)
    whole = np.issubdtype(dtype, np.integer)
    number = st.integers(*limits) if whole else st.floats(*limits, width=8 * np.dtype(dtype).itemsize)
    size = math.prod(shape)
    ends = np.array([sorted((draw(number), draw(number))) for _ in range(size)]).reshape(*shape, 2)
    return Box(ends[..., 0].astype(dtype), ends[..., 1].astype(dtype), dtype=dtype)


discretes = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 6), st.integers(-5, 1000))
several = st.one_of(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(MultiDiscrete),
    st.builds(lambda start: MultiDiscrete([[2, 3], [1, 2]], start=[[start, -1], [0, 5]]), st.integers(-3, 3)),
    st.sampled_from([MultiBinary(3), MultiBinary((2, 2))]),
)
spaces = st.one_of(boxes(), discretes, several)


@given(spaces, st.data())
def test_every_action_of_the_family_is_a_member_of_the_environments_own_space(space, data):
    shown = offered(space)
    if isinstance(shown, Discrete):
        assert shown.start == 0
        members = [member(space, np.int64(a)) for a in range(int(shown.n))]
        assert len({np.asarray(one).tobytes() for one in members}) == shown.n  # each another, so all there are
    else:
        assert shown == Box(-1, 1, (math.prod(space.shape),), np.float32)
        actions = data.draw(st.lists(st.floats(-3, 3, width=32), min_size=shown.shape[0], max_size=shown.shape[0]))
        members = [member(space, np.array(actions, np.float32))]
        for bound, own in ((-1, space.low), (1, space.high)):
            np.testing.assert_array_equal(member(space, np.full(shown.shape, bound, np.float32)), own)
        middle = (space.low.astype(float) + space.high) / 2
        np.testing.assert_allclose(member(space, np.zeros(shown.shape)), middle, rtol=1e-2, atol=0.5 + 1e-9)
    assert all(space.contains(one) for one in members)


def test_members_by_hand():
    assert member(Discrete(3, start=-1), np.int64(0)) == -1
    assert member(Box(np.float32([0, -4]), np.float32([1, 2])), np.array([0.0, 1.0])).tolist() == [0.5, 2.0]
    grid = Box(np.int8(-3), np.int8(5), (2, 2), np.int8)
    assert member(grid, np.array([-1, -0.5, 0.2, 9])).tolist() == [[-3, -1], [2, 5]]  # 1.8 is nearest to 2
    assert member(Box(-0.1, 0.3, (1,), np.float64), np.array([1.0])) == 0.3  # not -0.1 + 0.4, which is more
    assert member(Box(0.45, 0.45, (1,), np.float64), np.array([0.44])) == 0.45  # not .28 * .45 + .72 * .45, as little
    assert member(MultiDiscrete([2, 3], start=[0, 10]), np.int64(4)).tolist() == [1, 11]
    assert member(MultiBinary(3), np.int64(6)).tolist() == [1, 1, 0]


REFUSED = [
    Box(-np.inf, np.inf, (2,)),
    Box(np.float32([0, -np.inf]), np.float32([1, 1])),
    Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (1,)),
    Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
    MultiDiscrete([100, 100]),
    MultiBinary(20),
    Dict({"a": Discrete(2)}),
    Text(3),
]


@pytest.mark.parametrize("space", REFUSED, ids=str)
def test_actions_that_cannot_be_mapped_refuse_the_family_in_one_line(space, tmp_path):
    for agent, config in tiny().items():
        with pytest.raises(UserError, match=r"^mine/Family-v0: actions must be a Discrete, a bounded Box") as refused:
            agent.train(config, picky(space), run_of(tmp_path, config, agent, picky(space)))
        assert "\n" not in str(refused.value)


def tiny():
    return {
        maml_trpo: maml_trpo.Config(iterations=1, tasks=2, episodes=2, hidden=(3,), validate_every=0),
        rl2: rl2.Config(iterations=1, trials=2, trial_episodes=2, hidden=3, epochs=1, minibatches=1),
    }


def run_of(folder, config, agent, family):
    return Run.create(folder / agent.__name__, learner=agent.__name__, config=config, source=family, seed=0)


patterns = st.fixed_dictionaries(
    {
        "script": st.lists(
            st.one_of(st.floats(-1e3, 1e3), st.integers(-5, 5), st.just(0.0), st.sampled_from([1e-30, -1e12])),
            min_size=1,
            max_size=HORIZON,
        ),
        "ends": st.sets(st.integers(1, HORIZON)),
    }
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(space=spaces, pattern=patterns)
def test_learners_give_environments_members_of_their_own_space_whatever_these_pay(space, pattern, tmp_path_factory):
    family = picky(space, **pattern)
    GIVEN.clear()
    folder = tmp_path_factory.mktemp("runs")
    for agent, config in tiny().items():
        run = run_of(folder, config, agent, family)
        agent.train(config, family, run)
        learned = agent.load(run, family)
        assert all(bool(value.isfinite().all()) for value in learned.params.values())
        assert np.isfinite(learned.curve(family.fixed("test", 2), Budget(1, 2), 0).values).all()
    Random(family).curve(family.fixed("test", 2), Budget(0, 2), 0)
    assert len(GIVEN) > 30
    assert all(own.contains(action) for own, action in GIVEN)


class Bare(TaskFamily):
    """A family written from the ground up, whose actions are another's business."""

    name = "mine/Bare-v0"
    presets = ("mine",)
    preset = "mine"
    horizon = 3
    observation_space = Box(-1, 1, (1,))

    def __init__(self, space):
        self.__dict__["space"] = space

    def __hash__(self):
        return 0

    @property
    def action_space(self):
        return self.space

    def options(self):
        return {}

    def draw(self, n, uniform, split):
        return Tasks({"a": uniform((n,))})

    def make_vec(self, tasks, replicas=1, *, threads=1):
        return BareEnv(self, tasks, replicas)


class BareEnv(TaskVectorEnv):
    def _start(self, mask):
        return np.zeros((self.num_envs, 1))

    def _advance(self, actions):
        raise AssertionError("was stepped")

    def render_frame(self, index):
        raise NotImplementedError


OTHERS = [Discrete(3, start=-1), Box(-2, 2, (1,)), Box(0, 1, (1,)), Box(-1, 1, (2, 2))]


@pytest.mark.parametrize("space", OTHERS, ids=str)
def test_a_family_of_ones_own_with_other_actions_is_refused_in_one_line(space, tmp_path):
    for agent, config in tiny().items():
        with pytest.raises(UserError, match=r"action") as refused:
            agent.train(config, Bare(space), run_of(tmp_path, config, agent, Bare(space)))
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"in a Discrete that counts from 0 or a flat Box between -1 and 1"):
        Random(Bare(space)).curve(Bare(space).fixed("test", 1), Budget(0, 1), 0)
