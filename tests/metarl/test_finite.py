"""No learner trains on, saves or reports a number that is NaN or infinite."""

import contextlib
import dataclasses
import io
import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from planted import plant

from metarl import cli, registry
from metarl.agents.baselines import Random
from metarl.envs import FAMILIES, make_family
from metarl.envs.wrappers.gym_family import GymFamily
from metarl.errors import NonFiniteError, UserError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.networks.scores import accuracy
from metarl.learning.contract import Budget
from metarl.ops import finite
from metarl.runs import checkpoints
from metarl.runs.failure import FAILURE
from metarl.runs.run import Run
from metarl.sampling.rollout import run_episodes
from metarl.seeding import Key
from metarl.tasks import Tasks

FEW_SHOT = [name for name, entry in registry.agents().items() if entry.source == "dataset"]
ACTING = [name for name, entry in registry.agents().items() if entry.source == "family"]
GLYPHS = Glyphs(ways=3, shots=2, queries=2)
TINY = {  # where a learner has such an option
    "iterations": 6,
    "checkpoint_every": 1,
    "log_every": 1,
    "width": 2,
    "strategy": "loop",
    "inner_step_size": 0.1,
    "train_shots": 3,
    "train_ways": 3,
    "train_queries": 2,
    "minibatch": 6,
    "epochs": 2,
    "hidden": (4,),
    "trials": 4,
    "trial_episodes": 1,
    "minibatches": 2,
    "tasks": 2,
    "episodes": 2,
    "threads": 1,
    "envs": 2,
    "validation_tasks": 2,
    "adaptation_steps": 1,
    "adaptation_episodes": 2,
}
DIVERGING = {"step_size": 1e30, "outer_step_size": 1e30}  # after the first of which a network overflows


@dataclass(frozen=True)
class Spoiled(GymFamily):
    """Points on a line. One number of one step is not finite; `after` counts the steps of the whole process."""

    name = "mine/Spoiled-v0"
    presets = ("mine",)
    horizon = 4
    preset: str = "mine"
    what: str = "reward"  # or observation, or start
    at: int = 2  # the step of an episode, from 1
    value: str = "nan"
    discrete: bool = False

    def draw(self, n, uniform, split):
        return Tasks({"place": uniform((n,))})

    def build(self, task):
        return Line(self, float(task["place"]))


class Line(gymnasium.Env):
    def __init__(self, family, place):
        self.family, self.place = family, place
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Discrete(2) if family.discrete else Box(-1.0, 1.0, (1,), np.float32)

    def seen(self, what):
        spoiled = self.steps == self.family.at and self.family.what == what
        return np.array([self.place, float(self.family.value) if spoiled else self.steps / 4])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen("observation"), {}

    def step(self, action):
        self.steps += 1
        spoiled = self.steps == self.family.at and self.family.what == "reward"
        return self.seen("observation"), float(self.family.value) if spoiled else self.place, False, False, {}


class Said(NamedTuple):
    code: int
    err: str


def tiny(name, **changes):
    kind = registry.learner(name).Config
    names = {field.name for field in dataclasses.fields(kind)}
    own: dict[str, dict[str, Any]] = {name: {"hidden": 4} for name in ("rl2", "varibad")}
    own |= {ppo: {"step_sizes": (0.1,)} for ppo in ("ppo-pretrained", "ppo-scratch")}
    changes = {**own.get(name, {}), **changes}
    changes = {"iterations": 1} | changes if name == "ppo-scratch" else changes
    return kind(**{option: value for option, value in {**TINY, **changes}.items() if option in names})


def begin(folder, name, config, source):
    return Run.create(folder, learner=name, config=config, source=source, seed=1)


def train(run, source):
    registry.learner(run.learner).train(run.config, source, run)


def all_finite(tree):
    return finite.first_non_finite(tree) is None


def kept(folder):
    """What a failed run leaves to look at: small, and plain data."""
    assert (folder / FAILURE).stat().st_size < finite.REPRODUCER_BYTES + 50_000
    return torch.load(folder / FAILURE, weights_only=True)


def newest(folder):
    """Iterations of the last checkpoint and its state; None if there is none."""
    manifest = checkpoints.latest(folder / "checkpoints")
    return None if manifest is None else (manifest.iteration, Run.open(folder).restore()[1])


def sound(run, error):
    """The folder after a failure: no number in it but in the reproducer is not finite, and the line says all."""
    line = str(error)
    assert "\n" not in line
    assert f"iteration {error.iteration}" in line
    assert str(run.folder / FAILURE) in line
    document = kept(run.folder)
    assert document["what"] in line
    assert (document["seed"], document["iteration"], document["learner"]) == (1, error.iteration, run.learner)
    assert document["task"] or document["data"]
    last = newest(run.folder)
    assert (last is None) == ("there is no checkpoint yet" in line)
    if last is not None:
        assert last[0] <= error.iteration
        assert f"the last checkpoint, of {last[0]} iterations, stays" in line
        assert all_finite(last[1])
    assert all(math.isfinite(value) for row in run.metrics() for value in row.values())
    return document


# Learners that diverge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEW_SHOT)
def test_a_few_shot_learner_that_diverges_stops(name, tmp_path):
    config = tiny(name, **DIVERGING)
    run = begin(tmp_path / "run", name, config, GLYPHS)
    with pytest.raises(NonFiniteError) as caught:
        train(run, GLYPHS)
    document = sound(run, caught.value)
    first = newest(run.folder)
    # Resumed, it stops in the same iteration for the same reason: the streams are keyed.
    again = Run.resume(run.folder, learner=name, config=config, source=GLYPHS, seed=1)
    with pytest.raises(NonFiniteError) as twice:
        train(again, GLYPHS)
    assert str(twice.value) == str(caught.value)
    assert kept(run.folder)["what"] == document["what"]
    assert (first is None) == (newest(run.folder) is None)
    # A smaller step is another run.
    with pytest.raises(UserError, match="holds another run: config"):
        Run.resume(run.folder, learner=name, config=tiny(name), source=GLYPHS, seed=1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("maml-trpo", {"inner_step_size": 1e40}),
        ("maml-trpo", {"inner_step_size": 1e30}),
        ("rl2", {"step_size": 1e3, "iterations": 20}),
        ("rl2", {"step_size": 1e30}),
        ("rl2", {"step_size": 1e38}),
        ("ppo-pretrained", {"step_size": 1e30}),
        ("ppo-oracle", {"step_size": 1e30}),
        ("ppo-oracle", {"step_size": 1e38}),
    ],
)
def test_an_agent_that_diverges_stops(name, changes, tmp_path):
    family = make_family("metarl/Navigation2D-v0")
    run = begin(tmp_path / "run", name, tiny(name, **changes), family)
    with pytest.raises(NonFiniteError) as caught:
        train(run, family)
    document = sound(run, caught.value)
    assert not document["environment"]
    assert "smaller step sizes" in str(caught.value)


def test_ppo_scratch_needs_a_step_size_that_does_not_diverge(tmp_path):
    family = make_family("metarl/Navigation2D-v0")
    run = begin(tmp_path / "run", "ppo-scratch", tiny("ppo-scratch", step_sizes=(1e30, 1e40)), family)
    with pytest.raises(UserError, match="fine-tuning diverged with every step size"):
        train(run, family)
    run = begin(tmp_path / "other", "ppo-scratch", tiny("ppo-scratch", step_sizes=(1e40, 0.1)), family)
    train(run, family)
    assert run.recall("fine_tuning")["step_size"] == 0.1
    assert run.recall("fine_tuning")["validation"][0][1] is None


def test_the_reproducer_shows_the_failing_loss_again(tmp_path):
    """From the file and the run's source alone: the tasks it names have that loss with those parameters."""
    from metarl.fewshot.learners import protonet
    from metarl.fewshot.learners.metric import training_source
    from metarl.fewshot.networks.scores import loss_and_accuracy

    config = tiny("protonet", **DIVERGING)
    run = begin(tmp_path / "run", "protonet", config, GLYPHS)
    with pytest.raises(NonFiniteError):
        train(run, GLYPHS)
    document = kept(run.folder)
    network = protonet.make(config, GLYPHS, document["seed"])
    network.load_state_dict(document["state"]["params"])
    tasks = Tasks({name: values.numpy() for name, values in document["task"].items()})
    batch = training_source(config, GLYPHS).batch(tasks)
    assert document["what"] == "loss/query is nan"
    assert document["positions"] == [0, 1]
    assert loss_and_accuracy(network(batch, 3), batch.query_y)[0].isnan()


# Environments that give what is not finite -----------------------------------------------------------------

SPOILED = [("reward", 2), ("observation", 2), ("observation", 0), ("observation", 4)]


@pytest.mark.parametrize(("what", "at"), SPOILED)
@pytest.mark.parametrize("name", ACTING)
def test_an_agent_does_not_learn_from_such_an_environment(name, what, at, tmp_path):
    family = Spoiled(what=what, at=at)
    run = begin(tmp_path / "run", name, tiny(name), family)
    with pytest.raises(NonFiniteError) as caught:
        train(run, family)
    line, document = str(caught.value), kept(run.folder)
    assert (
        f"{'reward_env' if what == 'reward' else 'an observation (number 1 of it)'} of mine/Spoiled-v0 is nan" in line
    )
    assert (f"in step {at} of an episode" if at else "at the start of an episode") in line
    assert "in task 0 (place " in line
    assert "mend the environment" in line
    assert document["environment"]
    assert document["task"]["place"].shape == (1,)
    assert document["task"]["place"].tolist() == [float(line.partition("(place ")[2].partition(")")[0])]
    last = newest(run.folder)
    assert last is None or all_finite(last[1])  # ppo-scratch saves its policy before it acts
    if name != "ppo-scratch":
        assert last is None
        assert not run.metrics()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    what=st.sampled_from(["reward", "observation"]),
    at=st.integers(0, 4),
    value=st.sampled_from(["nan", "inf", "-inf", "1e39", "1e308"]),
    tasks=st.integers(1, 3),
    replicas=st.integers(1, 3),
    discrete=st.booleans(),
)
@example(what="reward", at=1, value="inf", tasks=2, replicas=1, discrete=True)
def test_whatever_is_not_finite_is_met_in_its_step(what, at, value, tasks, replicas, discrete):
    family = Spoiled(what=what, at=at, value=value, discrete=discrete)
    env = family.make_vec(family.fixed("test", tasks), replicas)

    def act(obs, t):
        return torch.zeros(tasks, replicas, *[] if discrete else [1], dtype=torch.int64 if discrete else torch.float32)

    if what == "reward" and at == 0:  # a start has no reward
        assert run_episodes(env, act, Key(0)).returns().isfinite().all()
        return
    with pytest.raises(NonFiniteError) as caught:
        run_episodes(env, act, Key(0))
    error = caught.value
    assert error.environment
    assert error.tasks == [0]
    assert error.data["step"] == at
    if at:  # the episode up to there, which its seed begins again
        assert error.data["observations"].shape == (at, 2)
        assert error.data["rewards"].shape == (at - 1,)
        obs, _ = Spoiled().make_vec(family.fixed("test", tasks), replicas).reset(seed=error.data["seed"])
        np.testing.assert_array_equal(obs[error.row].astype(np.float32), error.data["observations"][0])


def test_the_task_and_the_term_are_named():
    """One row of several, one term of two, in a family of our own."""
    family = make_family("metarl/Navigation2D-v0")
    env = family.make_vec(family.fixed("test", 3), 2)
    env.reset(seed=0)
    plain = env._advance

    def spoiled(actions):
        obs, terms, terminated = plain(actions)
        return obs, {**terms, "reward_odd": np.array([0, 0, 0, 0, 0, math.inf])}, terminated

    env._advance = spoiled
    with pytest.raises(NonFiniteError) as caught:
        env.step(np.zeros((6, 2), np.float32))
    assert "reward_odd of metarl/Navigation2D-v0 is inf in step 1 of an episode, in task 2 (goal [" in str(caught.value)


@pytest.mark.parametrize(("what", "at"), SPOILED)
def test_nothing_is_measured_in_such_an_environment(what, at):
    family = Spoiled(what=what, at=at)
    with pytest.raises(NonFiniteError, match="mend the environment"):
        Random(family).curve(family.fixed("test", 2), Budget(0, 2), 0)


# Logs, checkpoints, scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        {"params": {"w": torch.tensor([1.0, math.nan])}},
        {"optimiser": {"state": {0: {"exp_avg_sq": torch.tensor(math.inf)}}}},
        {"scale": [1.0, -math.inf]},
    ],
)
def test_a_state_that_is_not_finite_is_never_the_newest(state, tmp_path):
    source = make_family("metarl/Navigation2D-v0")
    run = begin(tmp_path / "run", "maml-trpo", tiny("maml-trpo"), source)
    good = {"params": {"w": torch.ones(2)}}

    def until_spoiled():
        nonlocal good
        with run.loop(3, checkpoint_every=1, state=lambda: good) as loop:
            for iteration in loop:
                loop.log({"loss": 1.0}, {})
                if iteration == 1:
                    good = state

    with pytest.raises(NonFiniteError) as caught:
        until_spoiled()
    assert caught.value.iteration == 1
    assert newest(run.folder)[0] == 1
    assert newest(run.folder)[1]["params"]["w"].tolist() == [1.0, 1.0]
    assert next(iter(state)) in str(caught.value)


def test_a_mask_may_be_infinite_and_nothing_else():
    tensors = {"w": torch.ones(2, requires_grad=True), "mask": torch.tensor([-math.inf, 0.0]), "n": torch.tensor(3)}
    assert finite.masks(tensors, torch.optim.SGD([tensors["w"]], lr=1.0)) == ["mask"]
    state = {"params": tensors, "infinite": ["mask"]}
    assert finite.first_non_finite(state) is None
    finite.check_tensors(tensors, "", ["mask"])
    tensors["mask"][1] = math.nan
    assert "state['params']['mask']" in finite.first_non_finite(state)
    for value in (math.inf, math.nan):
        state = {"params": {"w": torch.tensor(value), "mask": torch.tensor(-math.inf)}, "infinite": ["mask"]}
        assert "state['params']['w']" in finite.first_non_finite(state)
        with pytest.raises(NonFiniteError, match=f"w is {value}"):
            finite.check_tensors(state["params"], "", ["mask"])


def spoil(folder, where):
    """Put a NaN into the checkpoint of a run, as versions before this one saved them."""
    iteration, state = newest(folder)
    tensors = state["policy"] if "policy" in state else state["params"]
    name = list(tensors)[where]
    tensors[name].view(-1)[0] = math.nan
    plant(folder, iteration, state)


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo-oracle", "protonet", "reptile", "logistic"])
def test_a_checkpoint_that_is_not_finite_is_refused(name, tmp_path):
    """By everything that reads one: evaluate, video, predict, the classifier, --resume."""
    source = GLYPHS if name in FEW_SHOT else make_family("metarl/Navigation2D-v0")
    config = tiny(name, iterations=1)
    train(begin(tmp_path / "run", name, config, source), source)
    spoil(tmp_path / "run", 0)
    refusal = "is not finite, so its training failed"
    assert refusal in refused(metarl("evaluate", tmp_path / "run", "--tasks", "2"))
    if name in FEW_SHOT:
        with pytest.raises(UserError, match=refusal):
            FewShotClassifier(tmp_path / "run").fit(np.zeros((4, 28, 28)), list("abab"))
    else:
        assert refusal in refused(metarl("video", tmp_path / "run", "--out", tmp_path / "x.gif"))
    with pytest.raises(UserError, match=refusal):
        Run.resume(tmp_path / "run", learner=name, config=tiny(name, iterations=1), source=source, seed=1)


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
    st.data(),
)
def test_no_class_is_the_likeliest_of_what_is_not_a_number(rows, value, data):
    logits = torch.tensor(rows)
    labels = torch.zeros(len(rows), dtype=torch.int64)
    if value is not None:
        logits[data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 2))] = value
    expected = (logits.argmax(-1) == labels).float().mean()
    if value in (None, -math.inf):  # an impossible class is one
        assert accuracy(logits, labels) == expected
    else:
        assert accuracy(logits, labels).isnan()
    assert accuracy(torch.stack([logits, torch.zeros_like(logits)]), labels.expand(2, -1))[1] == 1


def overflowing(encoder_or_params):
    for value in encoder_or_params:
        value.fill_(1e30)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_parameters_so_large_that_features_overflow_have_no_score(name, tmp_path):
    run = begin(tmp_path / "run", name, tiny(name, iterations=1), GLYPHS)
    train(run, GLYPHS)
    iteration, state = newest(run.folder)
    for value in state["params"].values():
        if value.is_floating_point():
            value.copy_(1e30 * torch.sign(value + 1e-9))
    plant(run.folder, iteration, state)
    loaded = registry.learner(name).load(Run.open(run.folder, type(run.config)), GLYPHS)
    with pytest.raises(NonFiniteError):
        loaded.curve(GLYPHS.fixed("test", 2), Budget(1, 1), 0)
    tasks = GLYPHS.fixed("test", 1)
    with pytest.raises(NonFiniteError):
        loaded.log_probabilities(GLYPHS.batch(tasks), 3)


def test_a_task_on_which_adaptation_diverges_has_no_score_and_the_others_have():
    """One gradient step of 1e40 overflows where a gradient is not 0; the policy before it is as good as ever."""
    from metarl.learning.gradient_adaptation import Adapting, validation_metrics

    family = make_family("metarl/Navigation2D-v0")
    policy = tiny("maml-trpo").policy(family)
    params = policy.init(Key(0).torch())
    agent = Adapting(policy, params, family, 1e40, 0.99, 1.0)
    scores = agent.curve(family.fixed("test", 3), Budget(2, 2), 0)
    assert np.isfinite(scores.values[:, 0]).all()
    assert np.isnan(scores.values[:, 1:]).all()
    calm = Adapting(policy, params, family, 0.1, 0.99, 1.0).curve(family.fixed("test", 3), Budget(2, 2), 0)
    np.testing.assert_array_equal(calm.values[:, 0], scores.values[:, 0])
    assert validation_metrics(calm.values)["validation/diverged"] == 0
    assert validation_metrics(scores.values).keys() == {"return/validation_0", "validation/diverged"}
    assert validation_metrics(scores.values)["validation/diverged"] == 1
    params["0.weight"][0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="an action is"):
        agent.curve(family.fixed("test", 3), Budget(2, 2), 0)


def test_a_discrete_action_of_a_policy_that_is_nan_is_no_action():
    from metarl.sampling.rollout import rollout

    family = Spoiled(what="nothing", discrete=True)
    policy = tiny("maml-trpo").policy(family)
    params = policy.init(Key(0).torch())
    env = family.make_vec(family.fixed("test", 2), 1)
    assert rollout(env, policy, params, Key(0)).rewards.isfinite().all()
    params["0.bias"][:] = math.nan
    with pytest.raises(
        NonFiniteError, match="an action is nan in mine/Spoiled-v0 at the start of an episode, in task 0"
    ):
        rollout(env, policy, params, Key(0))


@given(st.integers(1, 400_000), st.integers(1, 400_000))
@example(finite.REPRODUCER_BYTES // 8, 1)  # one array takes all there is
@settings(max_examples=20)
def test_a_reproducer_is_bounded(task, data):
    error = NonFiniteError("x is nan", task={"a": np.zeros((1, task))}, data={"b": np.zeros(data, np.float32), "c": 1})
    document = finite.reproducer(error, {"w": torch.zeros(1000)})
    packed = checkpoints.pack(document)
    assert len(packed) < finite.REPRODUCER_BYTES + 20_000
    assert document["data"]["c"] == 1
    missing = {"a": 8 * task, "b": 4 * data}
    for part, name in (("task", "a"), ("data", "b")):
        assert (name in document[part]) != (f"{part} {name}, {missing[name]} bytes" in document["left_out"])


# As a user types it ----------------------------------------------------------------------------------------

NAVIGATION = "metarl/Navigation2D-v0"


def metarl(*words):
    """The command as typed, in this process: its exit code and what it says on stderr."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return Said(code, err.getvalue())


def refused(said):
    """The one line of what ended with exit code 2."""
    assert said.code == 2, said
    assert said.err.count("\n") == 1
    return said.err


def failed(said):
    """The one line of what ended with exit code 3."""
    assert said.code == 3, said
    lines = [line for line in said.err.splitlines() if line.startswith("metarl: ")]
    assert len(lines) == 1
    assert "Traceback" not in said.err
    return lines[0]


def test_rl2_with_too_large_a_step(tmp_path):
    words = ["--family", NAVIGATION, "--trials", 8, "--minibatches", 2, "--hidden", 8, "--iterations", 6]
    said = metarl("train", "rl2", *words, "--checkpoint-every", 1, "--step-size", 1e3, "--out", tmp_path / "r")
    line = failed(said)
    iteration, state = newest(tmp_path / "r")
    assert f"training stopped in iteration {iteration}: " in line
    assert all_finite(state)
    again = failed(
        metarl("train", "rl2", *words, "--checkpoint-every", 1, "--step-size", 1e3, "--out", tmp_path / "r", "--resume")
    )
    assert again == line
    other = metarl(
        "train", "rl2", *words, "--checkpoint-every", 1, "--step-size", 1e-3, "--out", tmp_path / "r", "--resume"
    )
    assert "config.step_size is 1000.0 there and 0.001 here" in refused(other)


def test_maml_with_too_large_an_inner_step(tmp_path):
    line = failed(
        metarl(
            "train",
            "maml",
            "--dataset",
            "sinusoid",
            "--inner-step-size",
            1e6,
            "--strategy",
            "loop",
            "--out",
            tmp_path / "r",
        )
    )
    assert "training stopped in iteration 0: loss/query is" in line
    assert "there is no checkpoint yet" in line
    document = kept(tmp_path / "r")
    assert document["task"]["amplitude"].shape == (len(document["positions"]),)


def test_protonet_that_is_as_large_as_float32_allows(tmp_path):
    words = ["--dataset", "glyphs", "--step-size", 1e30, "--width", 2, "--train-ways", 3, "--checkpoint-every", 1]
    assert metarl("train", "protonet", *words, "--iterations", 1, "--out", tmp_path / "r").code == 0
    line = failed(metarl("evaluate", tmp_path / "r", "--tasks", 3))
    assert "a class probability is not finite, in 3 of 3 tasks" in line
    assert not (tmp_path / "r/curve.json").exists()
    failed(metarl("train", "protonet", *words, "--iterations", 3, "--out", tmp_path / "more"))
    assert newest(tmp_path / "more")[0] == 1


@pytest.mark.parametrize("agent", ["rl2", "random"])
def test_a_users_environment_with_a_nan_reward(agent, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "metarl.envs.spoiled", sys.modules[__name__])
    monkeypatch.setitem(FAMILIES, "mine/Spoiled-v0", ("spoiled", "Spoiled"))
    if agent == "random":
        said = metarl("evaluate", "random", "--family", "mine/Spoiled-v0", "--tasks", 2, "--episodes", 2)
    else:
        said = metarl(
            "train", agent, "--family", "mine/Spoiled-v0", "--trials", 4, "--minibatches", 2, "--out", tmp_path / "r"
        )
    line = failed(said)
    assert "reward_env of mine/Spoiled-v0 is nan in step 2 of an episode, in task 0 (place " in line
    assert line.endswith("mend the environment\n".strip())
