from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import BANDIT, DIRECTION, MDP, NAVIGATION, QUICK, contents, metarl, refused

from metarl import registry
from metarl.evaluation.curve import AdaptationCurve


def test_evaluating_a_run_writes_a_curve_and_a_picture(trained: Path) -> None:
    folder = trained / "0"
    curve = AdaptationCurve.load(folder / "curve.json")
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (curve.agent, curve.family, curve.preset, curve.split) == ("maml-trpo", NAVIGATION, "maml2017", "test")
    assert curve.per_task.shape == (1, 3, 2)
    assert curve.seeds == (0,)
    assert curve.env_steps == (0, 200)
    assert curve.config["iterations"] == 1
    assert curve.random is not None
    assert curve.oracle is not None
    assert curve.random < curve.oracle < 0
    from metarl.envs import make_family

    assert curve.task_hash == make_family(NAVIGATION).fixed("test", 3).sha256()


def test_evaluation_repeats_and_names_other_splits_apart(trained: Path, tmp_path: Path) -> None:
    said = metarl("evaluate", trained / "0", *QUICK, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert said.code == 0
    assert (tmp_path / "a.json").read_bytes() == (trained / "0" / "curve.json").read_bytes()
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 3 * 2
    before = (trained / "0" / "curve.json").read_bytes()
    assert metarl("evaluate", trained / "0", *QUICK, "--split", "ood").code == 0
    assert AdaptationCurve.load(trained / "0" / "curve-ood.json").split == "ood"
    assert (trained / "0" / "curve.json").read_bytes() == before


def test_the_table_shows_the_curve(trained: Path, tmp_path: Path) -> None:
    said = metarl("evaluate", trained / "1", *QUICK, "--plot", tmp_path / "a.svg")
    curve = AdaptationCurve.load(trained / "1" / "curve.json")
    for value in (*curve.mean, curve.interval.low[1], curve.gain.value[1], curve.gain.high[1]):
        assert f"{value:.2f}" in said.out
    assert curve.normalised is not None
    assert f"{curve.normalised[1]:.3f}" in said.out
    assert str(tmp_path / "a.svg") in said.out
    assert (tmp_path / "a.svg").exists()


def test_scores_are_finite(trained: Path) -> None:
    assert np.isfinite(AdaptationCurve.load(trained / "0" / "curve.json").per_task).all()


def test_a_finite_family_is_measured_whole_and_task_by_task(tmp_path: Path) -> None:
    words = ("--family", DIRECTION, "--episodes", 1, "--steps", 0)
    said = metarl(
        "evaluate", "random", *words, "--tasks", 40, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.svg"
    )
    assert said.code == 0, said.err
    assert f"{DIRECTION} has 2 test tasks, fewer than 40: all were measured\n" in said.out
    curve = AdaptationCurve.load(tmp_path / "a.json")
    assert (curve.per_task.shape, curve.task_of, curve.trained) == ((1, 2, 1), (0, 1), False)
    assert "Each task alone" in said.out
    for name, row in zip(curve.task_names, curve.per_task[0, :, 0], strict=True):
        assert name in said.out
        assert f"{row:.2f}" in said.out
        assert name in (tmp_path / "a.svg").read_text()
    assert "gain" not in said.out  # random does not adapt
    assert curve.random == pytest.approx(curve.mean[0])
    quiet = metarl("evaluate", "random", *words, "--tasks", 2)
    assert "all were measured" not in quiet.out
    other = metarl("evaluate", "stand-still", *words, "--json", tmp_path / "b.json")
    assert other.code == 0, other.err
    text = tmp_path / "all.md"
    both = metarl("compare", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "c.png", "--markdown", text)
    assert both.code == 0, both.err
    assert f"| random, {curve.task_names[0]} | {curve.per_task[0, 0, 0]:.2f} |" in text.read_text()
    assert "With 2 tasks no p can be below 0.5." in " ".join(both.out.split())


def test_repeats_of_a_family_that_does_not_say_it_is_finite_are_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metarl.envs import family_class

    monkeypatch.setattr(family_class(DIRECTION), "finite", lambda self, split: None)
    monkeypatch.setattr(family_class(DIRECTION), "check_tasks", lambda self, tasks: None)  # it would ask for the list
    words = ("--family", DIRECTION, "--episodes", 1, "--steps", 0, "--tasks", 12)
    said = metarl("evaluate", "random", *words, "--json", tmp_path / "a.json")
    assert said.code == 0, said.err
    assert "2 test tasks in 12 rows" in said.out
    curve = AdaptationCurve.load(tmp_path / "a.json")
    rows = np.array(curve.task_of)
    means = [curve.per_task[0, rows == row].mean(0) for row in sorted(set(rows))]
    assert curve.mean == pytest.approx(np.mean(means, axis=0))
    assert curve.random == pytest.approx(curve.mean[0])  # the reference weighs tasks alike


def test_every_solver_has_a_name() -> None:
    from metarl.agents.solvers import bandits as bandit_solvers
    from metarl.agents.solvers import mdps as mdp_solvers

    for name in bandit_solvers.STRATEGIES.keys() | mdp_solvers.STRATEGIES.keys():
        assert name in registry.untrained()


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, BANDIT) for name, entry in registry.untrained().items() if registry.BANDITS in entry.where]
    + [(name, MDP) for name, entry in registry.untrained().items() if registry.MDPS in entry.where],
)
def test_solvers_are_evaluated_on_their_families(name: str, family: str, tmp_path: Path) -> None:
    options = ["--pulls", "4", "--arms", "3"] if family == BANDIT else ["--family.episodes", "2"]
    said = metarl("evaluate", name, "--family", family, *options, *QUICK, "--json", tmp_path / "curve.json")
    assert said.code == 0, said.err
    curve = AdaptationCurve.load(tmp_path / "curve.json")
    assert (curve.agent, curve.family, curve.tasks) == (name, family, 3)
    assert curve.env_steps == ((0,) if family == BANDIT else (0, 10))
    assert ("regret a pull" in said.out) == (family == BANDIT)
    assert curve.regret is None if family == MDP else len(curve.regret or ()) == 4


def test_regret_a_pull_is_in_the_curve(tmp_path: Path) -> None:
    from metarl.agents.solvers import bandits as bandit_solvers
    from metarl.envs import make_family
    from metarl.seeding import Key

    metarl("evaluate", "ucb1", "--family", BANDIT, *QUICK, "--json", tmp_path / "curve.json")
    family = make_family(BANDIT)
    tasks = family.fixed("test", 3)
    played = bandit_solvers.solver("ucb1", family).play(tasks, 2, Key(0)("bandit solver"))
    best = tasks.arrays["mean"].max(1)[:, None]
    pulled = np.array([tasks.arrays["mean"][t][played.arms[t]] for t in range(3)])  # (task, trial, pull)
    expected = (best[:, None] - pulled).mean((0, 1))
    np.testing.assert_allclose(AdaptationCurve.load(tmp_path / "curve.json").regret, expected)


BAD: list[tuple[list[str], str]] = [
    (["evaluate", "gittins", "--family", NAVIGATION], f"gittins plays bandits, and {NAVIGATION} is none"),
    (["evaluate", "beb", "--family", BANDIT], f"beb plays tabular MDPs, and {BANDIT} is none"),
    (["evaluate", "greedy", "--family", NAVIGATION], "greedy plays bandits, and"),
    (["evaluate", "gitins", "--family", BANDIT], "did you mean gittins?"),
    (["evaluate", "bayes-optimum", "--family", BANDIT, "--pulls", "100"], "at most 16 pulls, got 100"),
    (["evaluate"], "RUN|AGENT comes first"),
    (["evaluate", "rnadom"], "there is no run 'rnadom' (did you mean random?)"),
    (["evaluate", "maml-trpo"], "must be trained first"),
    (["evaluate", "random"], f"give --family, one of {NAVIGATION}"),
    (["evaluate", "random", "--family", NAVIGATION, "--split", "tset"], "unknown split of"),
    (["evaluate", "random", "--family", NAVIGATION, "--tasks", "0"], "--tasks is 0; it must be at least 1"),
    (["evaluate", "random", "--family", NAVIGATION, "--steps", "-1"], "got -1 and 40"),
    (["evaluate", "random", "--family", NAVIGATION, "--plot", "x.gif"], "must end in .png, .svg, .pdf"),
    (["evaluate", "random", "--family", NAVIGATION, "--json", "no/x.json"], "there is no folder no"),
    (["evaluate", "random", "--family", NAVIGATION, "--json", "."], "cannot write"),
    (["evaluate", "random", "--family", NAVIGATION, "--csv", "x.json"], "must end in .csv"),
    (["evaluate", "random", "--family", NAVIGATION, "--json", "x.csv"], "give --csv"),
    (["evaluate", "oracle", "--family", NAVIGATION, "--preset", "promp"], "no optimal policy is known"),
    (["evaluate", "."], "holds no run"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_evaluate(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_damaged_or_foreign_checkpoint_is_refused_and_not_run(trained: Path, tmp_path: Path) -> None:
    run, exploded = tmp_path / "run", tmp_path / "exploded"
    shutil.copytree(trained / "0", run)
    states = [path for path in (run / "checkpoints").iterdir() if path.suffix != ".json"]
    assert states
    for damage in (b"", b"nonsense", pickle.dumps(Bomb(exploded))):
        for path in states:
            path.write_bytes(damage)
        before = contents(run)
        assert str(run) in refused(metarl("evaluate", run, *QUICK))
        assert contents(run) == before
    assert not exploded.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learner": "maml-trbo"}, "unknown agent"),
        ({"source": {"name": "metarl/Gone-v0", "options": {}}}, "unknown family or data set 'metarl/Gone-v0'"),
        ({"source": {"name": NAVIGATION, "options": {"preset": "x"}}}, f"cannot make {NAVIGATION}"),
        ({"source": {"name": NAVIGATION, "options": {"wind": 1}}}, f"cannot make {NAVIGATION}"),
        ({"source": {}}, "missing or of the wrong type: source"),
        ({"config": {"iterations": "many"}}, "iterations"),
    ],
)
def test_a_damaged_config_is_refused(trained: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "0", run)
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | change))
    assert message in refused(metarl("evaluate", run, *QUICK))


def test_a_run_keeps_its_family(trained: Path) -> None:
    assert "a run knows its tasks" in refused(metarl("evaluate", trained / "0", "--family", NAVIGATION))
