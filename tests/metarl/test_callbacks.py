"""Callbacks: what they are told, what they add, how they stop a training, and what is left when they fail."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metarl.errors import NonFiniteError, UserError
from metarl.integrations.trackers import Trackio, WandB
from metarl.runs.callbacks import Callback, check_callbacks
from metarl.runs.run import Run


@dataclass(frozen=True)
class Config:
    iterations: int = 6
    checkpoint_every: int = 4


@dataclass(frozen=True)
class Family:
    name: str = "metarl/Test-v0"

    def options(self):
        return {"preset": "one"}


def walk(run, silent=()):
    """A learner whose every number depends on all before it."""
    state = {"place": torch.zeros(1)}
    if restored := run.restore():
        state = restored[1]
    with run.loop(run.config.iterations, checkpoint_every=run.config.checkpoint_every, state=lambda: state) as loop:
        for iteration in loop:
            state = {"place": state["place"] * 0.5 + iteration}
            if iteration not in silent:
                loop.log({"return/place": float(state["place"])}, {"update_s": 0.25})


def begin(folder, callbacks=(), again=False, load=None):
    make = Run.resume if again else Run.create
    run = make(folder, learner="walk", config=Config(), source=Family(), seed=3)
    run.attach(callbacks, load)
    return run


def plain(folder):
    walk(begin(folder))
    return (folder / "metrics.jsonl").read_bytes()


class Diary(Callback):
    """Notes what it is told."""

    def __init__(self, answer=lambda metrics: None):
        self.told, self.answer = [], answer

    def on_start(self, training):
        self.training = training
        self.told.append("start")

    def on_iteration(self, metrics):
        self.told.append(dict(metrics))
        return self.answer(metrics)

    def on_checkpoint(self):
        self.told.append("checkpoint")

    def on_end(self):
        self.told.append("end")


def test_a_callback_is_told_of_everything_in_order_and_changes_nothing(tmp_path):
    diary = Diary()
    walk(begin(tmp_path / "run", [diary]), silent=[1])
    walk(begin(tmp_path / "plain"), silent=[1])
    told = diary.told
    assert [word if isinstance(word, str) else word["iteration"] for word in told] == [
        *["start", 0, 1, 2, 3, "checkpoint", 4, 5, "checkpoint", "end"]
    ]
    assert told[1] == {"iteration": 0, "return/place": 0.0, "time/update_s": 0.25}
    assert told[2] == {"iteration": 1}  # nothing was logged
    training = diary.training
    assert (training.folder, training.learner, training.seed) == (tmp_path / "run", "walk", 3)
    assert (training.completed, training.total, training.config) == (0, 6, Config())
    assert training.source == {"name": "metarl/Test-v0", "options": {"preset": "one"}}
    for name in ("metrics.jsonl", "timings.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("last", [1, 3, 5])
def test_a_callback_stops_the_training_which_goes_on_as_if_nothing_had_been(tmp_path, last, capsys):
    whole = plain(tmp_path / "whole")
    diary = Diary(lambda metrics: metrics["iteration"] < last)
    walk(begin(tmp_path / "run", [diary]))
    assert Run.open(tmp_path / "run").restore()[0] == last + 1
    assert f"stopped by Diary after {last + 1} of 6" in capsys.readouterr().err
    assert diary.told[-1] == "end"
    later = Diary()
    walk(begin(tmp_path / "run", [later], again=True))
    assert later.training.completed == last + 1
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == whole


def test_what_callbacks_add_is_logged_and_shown_to_those_after_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def own(metrics):
        if metrics["iteration"] % 2:
            metrics["score/own"] = torch.tensor(metrics["iteration"] / 4)

    diary = Diary()
    walk(begin(tmp_path / "run", [own, diary]), silent=[1])
    rows = Run.open(tmp_path / "run").metrics()
    assert [row.get("score/own") for row in rows] == [None, 0.25, None, 0.75, None, 1.25]
    assert rows[1] == {"iteration": 1, "score/own": 0.25}
    assert diary.told[2]["score/own"] == 0.25
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("score/own")] == [(1, 0.25), (3, 0.75), (5, 1.25)]
    assert [e.step for e in events.Scalars("time/update_s")] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("when", ["on_start", "on_iteration", "on_checkpoint", "on_end"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, UserError, NonFiniteError])
def test_a_callback_that_fails_leaves_a_run_that_can_go_on(tmp_path, when, error):
    whole = plain(tmp_path / "whole")
    diary, count = Diary(), iter(range(9))

    def fail(*args):
        if when != "on_iteration" or next(count) == 2:
            raise error("mine")

    with pytest.raises(error) as caught:
        walk(begin(tmp_path / "run", [diary, SimpleNamespace(**{when: fail})]))
    assert diary.told[-1] == "end"  # the others hear of it
    if error is not KeyboardInterrupt:
        assert caught.value.__notes__[0] == f"raised in {when} of the callback SimpleNamespace"
    if when == "on_iteration":
        assert caught.value.__notes__[-1] == f"{tmp_path / 'run'} can be resumed after 3 iterations"
        assert Run.open(tmp_path / "run").restore()[0] == 3
    walk(begin(tmp_path / "run", again=True))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == whole


def test_a_callback_judges_the_agent_as_it_is_now_without_a_trace_on_disk(tmp_path):
    whole, places = plain(tmp_path / "whole"), []

    def load(run):
        return run.restore()[1]["place"].item()

    class Judge(Callback):
        def on_start(self, training):
            self.training = training

        def on_iteration(self, metrics):
            before = sorted((self.training.folder / "checkpoints").glob("*"))
            places.append(self.training.agent())
            assert sorted((self.training.folder / "checkpoints").glob("*")) == before
            assert places[-1] == metrics["return/place"]

    walk(begin(tmp_path / "run", [Judge()], load=load))
    assert len(places) == 6
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == whole
    assert load(Run.open(tmp_path / "run")) == places[-1]


class Misspelt(Callback):
    def on_iterations(self, metrics):
        """Nobody calls it."""


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([Diary], "a callback is an object, and Diary is a class: give Diary()"),
        ([Misspelt()], "Misspelt has on_iterations, which nobody calls; there are on_start, on_iteration"),
        ([3], "int is no callback: it needs one of on_start"),
        (Diary(), "callbacks are given as a list"),
        (print, "callbacks are given as a list"),
        ("mine:Callback", "callbacks are given as a list"),
    ],
)
def test_what_is_no_callback_is_refused_in_one_line(callbacks, words):
    with pytest.raises(UserError) as caught:
        check_callbacks(callbacks)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (lambda metrics: 3.0, "must return False to stop, True or None to go on, got 3.0"),
        (lambda metrics: metrics.update(mine=float("nan")), "added 'mine': nan; a metric is a finite number"),
        (lambda metrics: metrics.update(mine=10**400), "added 'mine': 1"),
        (lambda metrics: metrics.update(mine=np.complex64(1j)), "a metric is a finite number"),
        (lambda metrics: metrics.update(mine=torch.tensor(1j)), "a metric is a finite number"),
        (lambda metrics: metrics.update(mine="much"), "added 'mine': 'much'; a metric is a finite number"),
        (lambda metrics: metrics.update({3: 1.0}), "added 3: 1.0; a metric is a finite number"),
        (lambda metrics: metrics.update({"return/place": 9.0}), "changed the metric 'return/place'"),
        (lambda metrics: metrics.clear(), "changed the metric 'iteration'"),
    ],
)
def test_what_a_callback_may_not_do_is_refused_in_one_line(tmp_path, hook, words):
    with pytest.raises(UserError) as caught:
        walk(begin(tmp_path / "run", [hook]))
    assert words in str(caught.value)
    assert Run.open(tmp_path / "run").restore()[0] == 1


def test_a_callback_that_runs_out_is_blamed(tmp_path):
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        walk(begin(tmp_path / "run", [lambda metrics: next(iter(()))]))
    assert any("on_iteration of the callback" in note for note in caught.value.__notes__)


class FakeTracker:
    """Has what is needed of `wandb` and `trackio`."""

    def __init__(self):
        self.calls = []

    def init(self, **options):
        self.calls.append(("init", options))
        return self

    def log(self, numbers, step):
        self.calls.append((step, numbers))

    def finish(self):
        self.calls.append("finish")


@pytest.mark.parametrize("kind", [WandB, Trackio])
def test_trackers_get_what_is_logged(tmp_path, monkeypatch, kind):
    fake = FakeTracker()
    monkeypatch.setitem(sys.modules, kind.module, fake)
    walk(begin(tmp_path / "run", [kind(project="mine", group="walks")]), silent=[1])
    (_, options), *logged, end = fake.calls
    assert end == "finish"
    assert [step for step, _ in logged] == [0, 2, 3, 4, 5]
    assert logged[0][1] == {"return/place": 0.0, "time/update_s": 0.25}
    assert (options["project"], options["group"], options["name"]) == ("mine", "walks", "run")
    assert options["config"]["config"] == {"iterations": 6, "checkpoint_every": 4}
    assert options["config"]["seed"] == 3
    walk(begin(tmp_path / "run", [kind(project="mine")], again=True))  # goes on as the same run
    again = [call[1] for call in fake.calls if call[0] == "init"][1]
    assert again["resume"] == "allow"
    assert (again["name"], again.get("id")) == (options["name"], options.get("id"))
    assert ("id" in options) == (kind is WandB)
    if kind is WandB:
        assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"wandb": options["id"]}


@pytest.mark.parametrize("kind", [WandB, Trackio])
def test_a_tracker_that_is_not_installed_is_said_in_one_line(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind.module, None)
    with pytest.raises(
        UserError, match=rf"needs the package {kind.module}.*pip install 'metarl-suite\[{kind.module}\]"
    ):
        kind()


def test_a_loop_is_logged_once_an_iteration(tmp_path: Path):
    run = begin(tmp_path / "run")
    with run.loop(2, checkpoint_every=1, state=dict) as loop:
        for _ in loop:
            loop.log({}, {})
            with pytest.raises(ValueError, match="logged twice"):
                loop.log({}, {})


@pytest.mark.parametrize("text", ["{", "[]", '{"wandb": 1}', '{"wandb": "a", "wandb": "b"}'])
def test_identities_that_no_tracker_wrote_are_one_line(tmp_path: Path, text: str) -> None:
    from metarl.integrations.trackers import _remembered

    (tmp_path / "trackers.json").write_text(text)
    with pytest.raises(UserError, match=r"trackers\.json is damaged"):
        _remembered(tmp_path, "wandb")
    assert (tmp_path / "trackers.json").read_text() == text
