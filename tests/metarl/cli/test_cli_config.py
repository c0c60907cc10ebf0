"""Options from a file, and runs that are resumed by their folder alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import NAVIGATION, SMALL, contents, metarl, refused, train

from metarl import registry
from metarl.cli.training import understood
from metarl.learning.presets import presets
from metarl.runs.record import new_record
from metarl.runs.run import Run

FILE = f"""
agent: maml-trpo
family: {NAVIGATION}
preset: pearl
iterations: 1
tasks: 2
episodes: 2
threads: 1
hidden: [8, 4]
"""


def test_options_come_from_a_file_and_what_is_typed_wins(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(FILE)
    assert metarl("train", "--config", path, "--out", tmp_path / "a").code == 0
    run = Run.open(tmp_path / "a")
    assert (run.learner, run.source["options"], run.config["hidden"]) == ("maml-trpo", {"preset": "pearl"}, [8, 4])
    assert metarl("train", f"--config={path}", "--out", tmp_path / "b", "--hidden", 3, "--preset", "promp").code == 0
    run = Run.open(tmp_path / "b")
    assert (run.source["options"], run.config["hidden"], run.config["tasks"]) == ({"preset": "promp"}, [3], 2)
    (tmp_path / "my.json").write_text(json.dumps({"family": NAVIGATION, "iterations": 1, "tasks": 2, "episodes": 2}))
    assert metarl("train", "maml-trpo", "--config", tmp_path / "my.json", "--out", tmp_path / "c").code == 0
    said = metarl("train", "--config", tmp_path / "a", "--out", tmp_path / "d", "--seed", 7)
    assert (said.code, "preset" in said.out) == (0, False)  # the run says all
    again = Run.open(tmp_path / "d")
    assert (again.config, again.seed) == (Run.open(tmp_path / "a").config, 7)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FILE + "iteration: 5", "unknown option in my.yaml 'iteration'; did you mean iterations? choose from activ"),
        (FILE + "gamma: {a: 1}", "gamma in my.yaml is {'a': 1}; it must be a number, a text, true, false or a list"),
        (FILE + "gamma: 2", "--gamma is 2.0; it must be between 0 and 1"),
        (FILE + "gamma: much", "--gamma: 'much' is not a number"),
        (FILE + "iterations: 1\niterations: 2", "cannot read options from my.yaml: it gives iterations twice"),
        (FILE + "init_std: 1\ninit-std: 2", "my.yaml gives init-std twice"),
        (FILE + "config: other.yaml", "my.yaml names another config, 'other.yaml'"),
        (FILE + "seeds: []", "--seeds names no seed"),
        ('{"learner": 3, "config": {}, "source": [], "seed": 0}', "my.yaml is damaged: missing or of the wrong type"),
        ("- 3", "my.yaml holds no options: it must be a mapping, such as 'iterations: 5'"),
        ("", "my.yaml holds no options"),
        ("3: 4", "my.yaml holds no options"),
        ("a: [", "cannot read options from my.yaml: while parsing"),
        ("!!python/object/apply:os.getcwd []", "cannot read options from my.yaml: could not determine a constructor"),
        (f"family: {NAVIGATION}", "AGENT comes first"),
        ("agent: 3", "agent in my.yaml is 3; it must be a name"),
        ("agent: maml-trbo", "unknown agent 'maml-trbo'; did you mean maml-trpo?"),
    ],
)
def test_files_that_say_something_else_are_refused(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(text)
    assert told in refused(metarl("train", "--config", "my.yaml", "--out", "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert "there is no config nothing.yaml" in refused(metarl("train", "--config", "nothing.yaml", "--out", "x"))
    assert "there is no config " in refused(metarl("train", "--config", tmp_path, "--out", "x"))
    assert "holds no run" in refused(metarl("train", "--resume", tmp_path))
    assert "--resume names no run" in refused(metarl("train", "--resume="))
    said = refused(metarl("train", "--resume", tmp_path, "--seeds", "1"))
    assert "--resume RUN goes on with one run: give no --seeds with it" in said
    said = refused(metarl("train", "--resume", tmp_path, "--out", "x"))
    assert "--resume RUN takes its options from the run: give neither --config nor --out with it" in said


def test_what_may_be_repeated_is_a_list_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"{FILE}track: [wandb, trackio]\ncallback: []\n")
    options = understood(["--config", str(path), "--out", "x"]).options
    assert (options.track, options.callback) == (("wandb", "trackio"), ())
    assert understood(["--config", str(path), "--out", "x", "--track", "wandb"]).options.track == ("wandb",)


@pytest.mark.parametrize("name", registry.agents())
def test_every_run_s_config_says_all_that_it_was_made_with(name: str, tmp_path: Path) -> None:
    """Any config of any learner comes back the same from the run's own file, whatever its presets have become."""
    learner, kind = registry.learner(name), registry.agents()[name].source
    source = "metarl/BernoulliBandit-v0" if kind == "family" else "omniglot"
    options = {"arms": 3, "pulls": 7} if kind == "family" else {"ways": 3, "shots": 2}
    for number, config in enumerate(presets(learner).values()):
        changed = _everything_else(config)
        record = new_record(name, changed, SimpleNamespace(name=source, options=lambda: options), 11, "cpu")
        record["choices"] = {}
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(record))
        training = understood(["--config", str(path), "--out", str(tmp_path / "x")])
        assert (training.config, training.options.seed, training.name) == (changed, 11, name)
        assert options.items() <= training.source.options().items()


def _everything_else(config: Any) -> Any:
    """The config with every switch turned, and other numbers where that may be."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        other: Any = not value if isinstance(value, bool) else [] if value == () else value
        if isinstance(value, int) and not isinstance(value, bool) and field.name in ("iterations", "checkpoint_every"):
            other = value + 1
        try:
            config = dataclasses.replace(config, **{field.name: tuple(other) if other == [] else other})
        except Exception:  # a switch that the others do not allow
            continue
    return config


def test_a_run_of_before_is_a_file_of_options_too(tmp_path: Path) -> None:
    """RL²'s `memory` was called `cell`."""
    run = Path(__file__).parents[3] / "results" / "navigation" / "runs" / "rl2-0"
    assert json.loads((run / "config.json").read_text())["config"]["cell"] == "lstm"
    training = understood(["--config", str(run), "--out", str(tmp_path / "x")])
    assert training.config == Run.open(run, registry.learner("rl2").Config).config


def test_a_run_is_resumed_by_its_folder_alone(tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(straight, "--iterations", "2", "--preset", "pearl", "--seed", "4").code == 0
    assert train(halted, "--preset", "pearl", "--seed", "4").code == 0
    assert metarl("train", "--resume", halted).code == 0
    said = metarl("train", f"--resume={halted}", "--iterations", "2")
    assert said.code == 0, said
    assert "preset" not in said.out
    assert (halted / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    before = contents(halted)
    assert "config.hidden is [32, 32] there and [3] here" in refused(metarl("train", "--resume", halted, "--hidden", 3))
    assert "seed is 4 there and 5 here" in refused(metarl("train", "--resume", halted, "--seed", 5))
    assert contents(halted) == before


def test_the_old_form_needs_no_option_again_either(tmp_path: Path) -> None:
    words = ["train", "maml-trpo", "--family", NAVIGATION, "--out", tmp_path / "run"]
    assert metarl(*words, *SMALL, "--hidden", "3").code == 0
    assert metarl(*words, "--iterations", "2", "--resume").code == 0
    assert Run.open(tmp_path / "run").config["hidden"] == [3]
    other = ["train", "rl2", "--family", NAVIGATION, "--out", tmp_path / "run", "--resume"]
    assert "learner is 'maml-trpo' there and 'rl2' here" in refused(metarl(*other))
