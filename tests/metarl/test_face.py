"""What `import metarl` offers: lazily, documented, each name with an example that runs."""

import dataclasses
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import metarl
from metarl.errors import UserError
from metarl.learning.contract import Scores

NAMES = [name for name in metarl.__all__ if name != "__version__"]
HEAVY = ("torch", "numpy", "gymnasium", "mujoco", "matplotlib", "tensorboard", "stable_baselines3", "sklearn", "tyro")


def test_the_import_is_light():
    code = f"import metarl, sys; print([name for name in {HEAVY} if name in sys.modules], 'train' in dir(metarl))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[] True\n"


def test_the_names_are_where_they_are_said_to_be():
    assert sorted(metarl._NAMES) == sorted(NAMES)
    for name in NAMES:
        assert getattr(metarl, name) is getattr(importlib.import_module(metarl._NAMES[name]), name)
        assert name in dir(metarl)
    with pytest.raises(AttributeError, match="module 'metarl' has no attribute 'trane'; it offers AdaptationCurve"):
        metarl.trane  # noqa: B018 - the attribute is what is tested


def test_type_checkers_see_the_same_names():
    source = Path(metarl.__file__).read_text()
    checked = source.partition("if TYPE_CHECKING:")[2].partition("_NAMES")[0]
    assert [name for name in NAMES if f" {name}" not in checked.replace("(", " ").replace(",", " ")] == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs that the examples load."""
    folder = tmp_path_factory.mktemp("runs")
    metarl.train("maml-trpo", "metarl/Navigation2D-v0", out=folder / "navigation", iterations=1, tasks=2, episodes=2)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_an_example_that_runs(name, runs, tmp_path, monkeypatch):
    value = getattr(metarl, name)
    names = {**{n: getattr(metarl, n) for n in NAMES}, "metarl": metarl}
    names |= {"np": np, "torch": torch, "gymnasium": gymnasium, "runs": runs, "dataclasses": dataclasses}
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", names, name, None, 0)
    assert test.examples, f"{name} shows no example"
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(
        test, out=said.append
    )
    assert result.failed == 0, "".join(said)


# The calls


def refusal(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_training_says_what_is_wrong_before_it_begins(tmp_path):
    family = metarl.make_family("metarl/Navigation2D-v0")

    def say(agent="maml-trpo", source=family, **options):
        return refusal(metarl.train, agent, source, out=tmp_path / "run", **options)

    assert "unknown agent 'maml-trop'; did you mean maml-trpo?" in say("maml-trop")
    assert "random needs no training" in say("random")
    assert "unknown family or data set 'metarl/Navigation-v0'; did you mean" in say(source="metarl/Navigation-v0")
    assert "Navigation2D is a class: give Navigation2D(), or its name" in say(source=type(family))
    assert "unknown option of maml-trpo 'iteration'; did you mean iterations?" in say(iteration=3)
    assert "--iterations is 0" in say(iterations=0)
    assert "unknown preset of maml-trpo 'papers'" in say(preset="papers")
    assert "this machine has no device 'cuda:77'" in say(device="cuda:77")
    assert "callbacks are given as a list" in say(callbacks=print, iterations=1)
    assert "iterations in the options of maml-trpo is 1.5, which is not int" in say(iterations=1.5)
    assert "hidden in the options of maml-trpo is 3" in say(hidden=3)
    assert "seed is 0.5; it must be a whole number" in say(seed=0.5)
    assert "agent is None; it must be a name" in say(agent=None)
    assert "protonet learns from a data set, and metarl/Navigation2D-v0 is none" in say("protonet")
    assert "maml-trpo acts in a task family, and sinusoid is none" in say(source=metarl.make_dataset("sinusoid"))
    assert not (tmp_path / "run").exists()


def test_a_training_is_stopped_and_goes_on(tmp_path):
    def train(folder, **options):
        small = {"iterations": 3, "tasks": 2, "episodes": 2, "seed": 5}
        return metarl.train("maml-trpo", "metarl/Navigation2D-v0", out=tmp_path / folder, **small, **options)

    whole, judged = train("whole"), []

    class Stop(metarl.Callback):
        def on_start(self, training):
            self.training = training

        def on_iteration(self, metrics):
            judged.append(metarl.measure(self.training.agent(), source=whole.family, name="now", tasks=2, episodes=2))
            return metrics["iteration"] < 1

    stopped = train("run", callbacks=[Stop()])
    assert len(judged) == 2
    assert not all(value.equal(whole.params[name]) for name, value in stopped.params.items())
    np.testing.assert_array_equal(judged[-1].per_task, metarl.measure(stopped, tasks=2, episodes=2).per_task)
    resumed = train("run", resume=True)
    assert all(value.equal(whole.params[name]) for name, value in resumed.params.items())
    assert "already holds a run" in refusal(train, "run")


class Straight(torch.nn.Linear):
    """A policy of a user's own."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)


class Asks(metarl.Callback):
    """Takes the agent out of a training that is going on."""

    def __init__(self):
        self.agents = []

    def on_start(self, training):
        self.training = training

    def on_iteration(self, metrics):
        self.agents.append(self.training.agent())


@pytest.mark.parametrize("name", ["maml-trpo", "promp"])
@pytest.mark.parametrize("network", [Straight, Straight(2, 2)], ids=["class", "module"])
def test_a_callback_takes_out_an_agent_with_a_network_brought_in_python(tmp_path, name, network):
    asks, small = Asks(), {"iterations": 2, "tasks": 2, "episodes": 2, "threads": 1}
    where = {"out": tmp_path / "run", "network": network}
    trained = metarl.train(name, "metarl/Navigation2D-v0", callbacks=[asks], **where, **small)
    first, last = asks.agents
    assert all(value.equal(last.params[key]) for key, value in trained.params.items())
    assert not all(value.equal(first.params[key]) for key, value in trained.params.items())
    again = Asks()
    metarl.train(name, "metarl/Navigation2D-v0", callbacks=[again], resume=True, **where, **small | {"iterations": 3})
    assert len(again.agents) == 1


def test_a_network_without_a_name_is_refused_before_the_training(tmp_path):
    def local(inputs, outputs):
        return Straight(inputs, outputs)

    for network in (local, lambda inputs, outputs: Straight(inputs, outputs)):
        where = {"out": tmp_path / "run", "network": network, "callbacks": [Asks()]}
        line = refusal(metarl.train, "maml-trpo", "metarl/Navigation2D-v0", **where)
        assert "it is mlp, or your own as mypackage.module:Name" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_a_callback_takes_out_a_learner_with_an_encoder_brought_in_python(tmp_path, name):
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 4), torch.nn.ReLU())
    asks, dataset = Asks(), metarl.make_dataset("glyphs", ways=3, shots=1, queries=2)
    few = {"train_ways": 3} if name == "protonet" else {"tasks": 2, "strategy": "loop"}
    metarl.train(name, dataset, out=tmp_path / "run", encoder=encoder, callbacks=[asks], iterations=2, **few)
    scores = [agent.curve(dataset.fixed("test", 2), metarl.Budget(1), seed=0).values for agent in asks.agents]
    assert len(scores) == 2
    assert np.isfinite(scores).all()


def test_measuring_knows_where_an_agent_comes_from(runs):
    agent = metarl.load(runs / "navigation")
    few = {"tasks": 2, "episodes": 2}
    curve, same = metarl.measure(agent, **few), metarl.measure(str(runs / "navigation"), **few)
    assert curve.to_dict() == same.to_dict()
    assert (curve.agent, curve.family, curve.seeds, curve.trained) == ("maml-trpo", agent.family.name, (0,), True)
    assert curve.config["tasks"] == 2
    assert metarl.measure(agent, name="mine", split="ood", steps=0, **few).agent == "mine"
    changed = dataclasses.replace(agent, step_size=0.0)  # another agent: it must not pass for the run's
    assert "say its source= and name=" in refusal(metarl.measure, changed)
    assert metarl.measure(changed, source=agent.family, name="frozen", **few).config == {}
    assert metarl.measure(metarl.make_agent("random", agent.family), **few).trained is False
    assert "got int" in refusal(metarl.measure, 3)
    assert "holds no run" in refusal(metarl.measure, runs / "nothing")

    class Mine:
        def curve(self, tasks, budget, seed):
            return Scores(np.zeros((len(tasks), 1)), None, None, None, "return", "nothing")

    assert metarl.measure(Mine(), source="metarl/Navigation2D-v0", name="mine", **few).mean == 0


def test_comparing_takes_curves_and_what_is_saved(runs, tmp_path):
    few = {"tasks": 3, "episodes": 2}
    curve = metarl.measure(runs / "navigation", **few)
    random = metarl.measure(metarl.make_agent("random", "metarl/Navigation2D-v0"), **few)
    random.save(tmp_path / "random.json")
    compared = metarl.compare([curve, str(tmp_path / "random.json")], against=1)
    assert compared.labels == ["maml-trpo", "random"]
    assert compared.against == 1
    other = dataclasses.replace(curve, seeds=(1,))
    assert metarl.compare([curve, other]).curves[0].seeds == (0, 1)
    assert "has no curve.json yet" in refusal(metarl.compare, [runs / "navigation"])
    assert "takes a list" in refusal(metarl.compare, curve)
    assert "takes a list" in refusal(metarl.compare, [])
    assert "got int" in refusal(metarl.compare, [3])
    assert "against is 2; there are 2 curves" in refusal(metarl.compare, [curve, random], against=2)


def test_making_says_what_it_is_not():
    assert "unknown family" in refusal(metarl.make_family, "metarl/Nothing-v0")
    assert "glyphs is a data set: metarl.make_dataset" in refusal(metarl.make_family, "glyphs")
    assert "task family" in refusal(metarl.make_dataset, "metarl/Navigation2D-v0")
    assert "maml-trpo must be trained first" in refusal(metarl.make_agent, "maml-trpo", "metarl/Navigation2D-v0")
    assert metarl.make_family("metarl/Navigation2D-v0", "pearl").preset == "pearl"
    assert "cannot make" in refusal(metarl.make_family, "metarl/Navigation2D-v0", size=3)


def test_a_few_shot_run_gives_a_classifier(tmp_path):
    classifier = metarl.train("protonet", metarl.make_dataset("glyphs"), out=tmp_path / "glyphs", iterations=1)
    assert isinstance(classifier, metarl.FewShotClassifier)
    pictures = np.random.default_rng(0).random((4, 28, 28))
    classifier.fit(pictures, ["a", "b", "a", "b"])
    assert classifier.predict(pictures).shape == (4,)
    assert metarl.measure(classifier, tasks=3).score == "accuracy"
    regression = metarl.train("maml", "sinusoid", out=tmp_path / "sine", iterations=1, strategy="loop")
    assert metarl.measure(regression, tasks=3).score == "mse"
