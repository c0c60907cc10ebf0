from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl import __version__, cli, registry
from metarl.cli import dispatch, options, quickstart
from metarl.cli.evaluate import EvaluateOptions
from metarl.evaluation.curve import AdaptationCurve
from metarl.runs.loop import Interrupted
from metarl.runs.run import Run

NAVIGATION = "metarl/Navigation2D-v0"
SMALL = ["--iterations", "1", "--tasks", "2", "--episodes", "2", "--threads", "1"]
QUICK = ["--tasks", "3", "--episodes", "2", "--steps", "1"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def metarl(*words: Any) -> Said:
    """The command as typed, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return Said(code, out.getvalue(), err.getvalue())


def refused(said: Said) -> str:
    """The one line of an error that ended with exit code 2."""
    assert said.code == 2, said
    assert said.err.startswith("metarl: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


def train(out: Path, *words: Any) -> Said:
    return metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", out, *SMALL, *words)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs, seeds 0 and 1, below this folder; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        assert train(folder / str(seed), "--seed", seed).code == 0
        assert metarl("evaluate", folder / str(seed), *QUICK).code == 0
    return folder


# As typed, in a process of its own


def test_help_is_quick_and_loads_no_torch() -> None:
    program = (
        "import sys; from metarl.cli import main; code = main(['--help'])\n"
        "heavy = {'torch', 'matplotlib', 'gymnasium', 'scipy', 'tyro'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert all(name in said.stdout for name in dispatch.COMMANDS)


def test_every_command_keeps_the_memory_it_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(dispatch, "keep_freed_memory", lambda: called.append(True))
    assert metarl("list", "agents").code == 0
    assert called == [True]


def test_the_installed_command_refuses_in_one_line() -> None:
    command = Path(sys.executable).with_name("metarl")
    said = subprocess.run(
        [command, "train", "maml-trpo", "--family", "metarl/Navigaton2D-v0", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.startswith(
        f"metarl: unknown family 'metarl/Navigaton2D-v0'; did you mean {NAVIGATION}? choose from {NAVIGATION}, "
    )
    assert said.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent otherwise on Windows")
def test_ctrl_c_leaves_a_run_that_the_printed_command_resumes(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("metarl"), "train", "maml-trpo", "--family", NAVIGATION]
    options = ["--out", "run", "--iterations", "100000", *SMALL[2:]]
    log = tmp_path / "run" / "metrics.jsonl"
    with subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert "Traceback" not in err
    assert last.startswith("metarl: interrupted after ")
    resume = last.partition("resume with: ")[2]
    assert resume == f"metarl train maml-trpo --family {NAVIGATION} {' '.join(options)} --resume"
    completed = Run.open(tmp_path / "run").restore()
    assert completed is not None
    assert completed[0] >= 1


# Training, evaluating, comparing


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


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The curve of standing still on the same tasks."""
    path = tmp_path_factory.mktemp("still") / "still.json"
    assert metarl("evaluate", "stand-still", "--family", NAVIGATION, *QUICK, "--json", path).code == 0
    return path


DIRECTION = "metarl/HalfCheetahDirection-v0"


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
    assert f"| random, {curve.task_names[0]} | 0 |" in text.read_text()
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


def test_compare_makes_seeds_one_curve(trained: Path, still: Path, tmp_path: Path) -> None:
    picture, numbers = tmp_path / "all.png", tmp_path / "all.json"
    said = metarl("compare", trained / "0", trained / "1" / "curve.json", still, "--out", picture, "--json", numbers)
    assert said.code == 0, said.err
    assert picture.exists()
    curves = [AdaptationCurve.from_dict(entry) for entry in json.loads(numbers.read_text())["curves"]]
    assert [(curve.agent, curve.seeds) for curve in curves] == [("maml-trpo", (0, 1)), ("stand-still", (0,))]


def test_compare_writes_tables_and_every_number(trained: Path, still: Path, tmp_path: Path) -> None:
    picture, numbers, text, profile = (tmp_path / name for name in ("a.svg", "a.json", "a.md", "profile.png"))
    files = ("--out", picture, "--json", numbers, "--markdown", text, "--profile", profile)
    said = metarl(
        "compare", trained / "0", trained / "1", still, *files, "--reach", "-1000", "--against", "stand-still"
    )
    assert said.code == 0, said.err
    assert profile.exists()
    found = json.loads(numbers.read_text())["comparison"]
    assert (found["against"], found["axis"]) == ("stand-still", "gradient_steps")
    maml, other = found["agents"]
    assert (maml["agent"], maml["seeds"], other["agent"]) == ("maml-trpo", [0, 1], "stand-still")
    last = np.mean([AdaptationCurve.load(trained / seed / "curve.json").mean[-1] for seed in "01"])
    assert maml["score"]["value"][-1] == pytest.approx(last)
    assert maml["difference"]["value"] == pytest.approx(last - AdaptationCurve.load(still).mean[-1])
    assert (other["difference"]["value"], other["p_value"]) == (0.0, None)
    assert (maml["p_value"], other["gain"]) == (None, None)
    assert maml["without_p_value"] == "it needs at least 5 training seeds of each trained agent"
    assert maml["reached"] == {"k": 0, "gradient_steps": 0, "env_steps": 0}
    written = text.read_text()
    for value in (maml["score"]["value"][1], maml["interquartile_mean"]["low"], maml["difference"]["high"]):
        assert f"{value:.2f}" in said.out
        assert f"{value:.2f}" in written
    assert "| maml-trpo | 2 |" in written


def test_compare_again_from_its_own_numbers(trained: Path, still: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert metarl("compare", trained / "0", still, "--out", tmp_path / "a.png", "--json", first).code == 0
    assert metarl("compare", first, "--out", tmp_path / "b.png", "--json", second).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    error = refused(metarl("compare", first, still, "--out", tmp_path / "c.png"))
    assert "a training seed occurs twice in [0, 0]" in error


def test_compare_against_a_run_as_typed(trained: Path, still: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "a.json"
    words = [
        "compare",
        still,
        trained / "1",
        "--out",
        tmp_path / "a.png",
        "--json",
        numbers,
        "--against",
        trained / "1",
    ]
    assert metarl(*words).code == 0
    assert json.loads(numbers.read_text())["comparison"]["against"] == "maml-trpo"


def test_report_writes_one_page(trained: Path, still: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "young").code == 0
    said = metarl("report", trained / "0", trained / "1", still, tmp_path / "young", "--out", tmp_path / "a" / "page")
    assert said.code == 0, said.err
    page = tmp_path / "a" / "page" / "index.html"
    assert str(page) in said.out.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert "Training of maml-trpo" in text
    assert f"<code>{tmp_path / 'young'}</code> has no adaptation curve yet" in text
    assert f"{AdaptationCurve.load(still).mean[-1]:.2f}" in text
    assert metarl("report", trained / "0", "--out", tmp_path / "a" / "page").code == 0  # written again
    assert page.read_text(encoding="utf-8") != text


def test_report_changes_nothing_where_it_refuses(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "it is a file; give a folder" in refused(metarl("report", trained / "0", "--out", tmp_path / "file"))
    assert "holds no run" in refused(metarl("report", trained, "--out", tmp_path / "page"))
    shutil.copytree(trained / "0", tmp_path / "damaged")
    (tmp_path / "damaged" / "metrics.jsonl").write_text("[\n")
    assert "metrics.jsonl is damaged" in refused(metarl("report", tmp_path / "damaged", "--out", tmp_path / "page"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "file"]
    assert (tmp_path / "file").read_text() == "mine"


OTHER_PROBLEMS = {
    "--episodes=3": "budget 1 steps of 2 episodes is not 1 steps of 3 episodes",
    "--steps=2": "budget 1 steps of 2 episodes is not 2 steps of 2 episodes",
    "--tasks=2": "tasks ",
    "--split=validation": "split test is not validation",
    "--preset=pearl": "preset maml2017 is not pearl",
    "--family=metarl/GridNavigation-v0": "family metarl/Navigation2D-v0 is not metarl/GridNavigation-v0",
}


@pytest.mark.parametrize("change", OTHER_PROBLEMS)
def test_compare_refuses_another_problem_and_draws_nothing(change: str, trained: Path, tmp_path: Path) -> None:
    agent = "random" if "Grid" in change else "oracle"
    other = tmp_path / "other.json"
    assert metarl("evaluate", agent, "--family", NAVIGATION, *QUICK, change, "--json", other).code == 0
    error = refused(metarl("compare", trained / "0", other, "--out", tmp_path / "all.png"))
    assert f"cannot compare maml-trpo with {agent}: {OTHER_PROBLEMS[change]}" in error
    assert not (tmp_path / "all.png").exists()


def test_options_of_the_learner_and_the_family_reach_them(tmp_path: Path) -> None:
    words = ["--preset=pearl", "--hidden", "8", "4", "--inner_step_size", "0.25", "--preset-config", "paper"]
    assert train(tmp_path / "run", *words).code == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["source"] == {"name": NAVIGATION, "options": {"preset": "pearl"}}
    assert record["config"]["hidden"] == [8, 4]
    assert record["config"]["inner_step_size"] == 0.25
    assert record["config"]["activation"] == "relu"  # from the paper's preset


def test_resume_goes_on_to_more_iterations(tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(straight, "--iterations", "2").code == 0
    assert train(halted).code == 0
    assert train(halted, "--iterations", "2", "--resume").code == 0
    assert (halted / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_a_data_set_is_learned_by_the_same_commands(tmp_path: Path) -> None:
    run = tmp_path / "sine"
    words = ["--iterations", "20", "--strategy", "loop", "--shots", "5", "--seed", "3"]
    said = metarl("train", "maml", "--dataset", "sinusoid", "--out", run, *words)
    assert said.code == 0, said.err
    said = metarl("evaluate", run, "--tasks", "8", "--steps", "2")
    assert said.code == 0, said.err
    curve = AdaptationCurve.load(run / "curve.json")
    assert (curve.agent, curve.family, curve.preset, curve.score) == ("maml", "sinusoid", None, "mse")
    assert curve.options == {"shots": 5, "queries": 10}
    assert curve.per_task.shape == (1, 8, 3)
    assert curve.seeds == (3,)
    assert (curve.random, curve.oracle) == (None, None)
    assert (run / "curve.png").exists()


def test_quickstart_trains_evaluates_and_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "CHANGES", {"iterations": 1, "tasks": 2, "episodes": 2, "threads": 1})
    monkeypatch.setattr(quickstart, "EvaluateOptions", lambda: EvaluateOptions(episodes=2))
    folder = tmp_path / "quick"
    first = metarl("quickstart", "--out", folder)
    assert first.code == 0, first.err
    assert "training maml-trpo" in first.out
    curve = AdaptationCurve.load(folder / "curve.json")
    assert curve.per_task.shape == (1, 40, 4)
    assert (folder / "curve.png").exists()
    again = metarl("quickstart", "--out", folder)
    assert again.code == 0
    assert "already trained" in again.out
    assert "training maml-trpo" not in again.out
    assert "seed is 0 there and 1 here" in refused(metarl("quickstart", "--out", folder, "--seed", "1"))


# Lists


def test_lists_name_everything_registered() -> None:
    from metarl.envs import FAMILIES

    families = json.loads(metarl("list", "families", "--json").out)
    assert [row["family"] for row in families] == list(FAMILIES)
    navigation = families[0]
    assert navigation["presets"] == ["maml2017", "pearl", "varibad", "promp"]
    assert navigation["tasks reused"] == ["promp"]
    agents = json.loads(metarl("list", "agents", "--json").out)
    assert {row["agent"]: row["trained"] for row in agents} == {
        **dict.fromkeys(registry.agents(), True),
        **dict.fromkeys(registry.untrained(), False),
    }
    assert [row["dataset"] for row in json.loads(metarl("list", "datasets", "--json").out)] == list(registry.datasets())
    assert NAVIGATION in metarl("list", "families").out
    assert "maml-trpo" in metarl("list", "agents").out


@pytest.mark.parametrize("name", registry.agents())
def test_every_learner_has_the_contract_s_names_and_documented_options(name: str) -> None:
    learner = registry.learner(name)
    assert callable(learner.train)
    assert callable(learner.load)
    help_text = metarl("train", name, "--help").out
    for flag in options.flags(learner.Config, pairs=False):
        assert flag in help_text


def test_help_grows_with_what_is_named() -> None:
    assert "--inner-step-size" not in metarl("train", "--help").out
    assert "--preset " not in metarl("train", "maml-trpo", "--help").out
    said = metarl("train", "maml-trpo", "--family", NAVIGATION, "--help")
    assert said.code == 0
    assert "--inner-step-size FLOAT" in said.out
    assert "--preset STR" in said.out
    for command in dispatch.COMMANDS:
        assert metarl(command, "--help").code == 0
    assert metarl("--version").out.strip() == __version__
    assert metarl().out == metarl("-h").out


BANDIT, MDP = "metarl/BernoulliBandit-v0", "metarl/TabularMDP-v0"


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


# Bad input: one line that says what is wrong, exit 2, nothing written

BAD: list[tuple[list[str], str]] = [
    (["trian"], "unknown command 'trian'; did you mean train? choose from quickstart, list, train"),
    (["list", "famlies"], "unknown list 'famlies'; did you mean families?"),
    (["list"], "comes first"),
    (["train"], "AGENT comes first"),
    (["train", "maml-trp"], "unknown agent 'maml-trp'; did you mean maml-trpo?"),
    (["train", "random", "--out", "x"], "random needs no training: metarl evaluate random"),
    (["train", "gittins", "--out", "x"], "gittins needs no training: metarl evaluate gittins --family ID"),
    (["evaluate", "gittins", "--family", NAVIGATION], f"gittins plays bandits, and {NAVIGATION} is none"),
    (["evaluate", "beb", "--family", BANDIT], f"beb plays tabular MDPs, and {BANDIT} is none"),
    (["evaluate", "greedy", "--family", NAVIGATION], "greedy plays bandits, and"),
    (["evaluate", "gitins", "--family", BANDIT], "did you mean gittins?"),
    (["evaluate", "bayes-optimum", "--family", BANDIT, "--pulls", "100"], "at most 16 pulls, got 100"),
    (["train", "maml-trpo", "--out", "x"], f"give --family, one of {NAVIGATION}"),
    (["train", "maml-trpo", "--family", "Navigation2D", "--out", "x"], f"did you mean {NAVIGATION}?"),
    (["train", "maml-trpo", "--dataset", "omniglot", "--out", "x"], "acts in a task family"),
    (["train", "maml-trpo", "--family", NAVIGATION], "--out"),
    (["train", "maml-trpo", "--family", NAVIGATION, "--out"], "--out"),
    (["train", "maml", "--out", "x"], "maml learns from a data set: give --dataset, one of sinusoid"),
    (["train", "maml", "--family", NAVIGATION, "--out", "x"], "maml learns from a data set"),
    (["train", "maml", "--dataset", "sinus", "--out", "x"], "unknown data set 'sinus'; did you mean sinusoid?"),
    (["train", "maml", "--dataset", "sinusoid", "--out", "x", "--shots", "0"], "--shots is 0"),
    (["train", "maml", "--dataset", "sinusoid", "--out", "x", "--preset", "a"], "unknown option '--preset'"),
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
    (["compare"], "RUN comes first"),
    (["compare", "nothing", "--out", "x.png"], "there is no run or curve 'nothing'"),
    (["compare", ".", "--out", "x.png"], "has no curve.json yet: metarl evaluate ."),
    (["compare", ".", "--out", "x.txt"], "must end in .png, .svg, .pdf"),
    (["report"], "RUN comes first"),
    (["report", "."], "--out"),
    (["report", "nothing", "--out", "x"], "there is no run or curve 'nothing'"),
    (["report", ".", "--out", "x"], "holds no run"),
    (["compare", ".", "--out", "x.png", "--profile", "x.txt"], "must end in .png, .svg, .pdf"),
    (["compare", ".", "--out", "x.png", "--markdown", "no/x.md"], "there is no folder no"),
    (["compare", "."], "--out"),
    (["compare", ".", "--out", "x.png", "--reach", "far"], "--reach: 'far' is not a number"),
    (["quickstart", "--sed", "1"], "unknown option '--sed'; did you mean --seed?"),
    (["quickstart", "--seed", "one"], "--seed: 'one' is not an integer"),
]
BAD_OPTIONS: list[tuple[list[str], str]] = [
    (["--preset", "perl"], "unknown preset of metarl/Navigation2D-v0 'perl'; did you mean pearl? choose from maml2017"),
    (["--preset-config", "papr"], "unknown config preset of maml-trpo 'papr'; did you mean paper?"),
    (["--iteration", "3"], "unknown option '--iteration'; did you mean --iterations? choose from --activation"),
    (["--inner-stepsize=3"], "unknown option '--inner-stepsize'; did you mean --inner-step-size?"),
    (["--iterations", "many"], "--iterations: 'many' is not an integer"),
    (["--gamma", "x"], "--gamma: 'x' is not a number"),
    (["--gamma", "1.5"], "--gamma is 1.5; it must be between 0 and 1"),
    (["--iterations", "0"], "--iterations is 0; it must be at least 1"),
    (["--order", "3"], "'--order'. Expected one of ('1', '2')"),
    (["--resume=yes"], "yes"),
    (["surplus"], "surplus"),
    (["--device", "abacus"], "this machine has no device 'abacus'"),
    (["--resume"], "no config.json"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS, ids=[" ".join(words) for words, _ in BAD_OPTIONS])
def test_bad_options(words: list[str], message: str, tmp_path: Path) -> None:
    said = metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", tmp_path / "run", *words)
    assert message in refused(said)
    assert not list(tmp_path.iterdir())


def test_another_run_in_the_folder_is_left_alone(trained: Path) -> None:
    before = contents(trained / "0")
    assert "already holds a run" in refused(train(trained / "0"))
    assert "seed is 0 there and 5 here" in refused(train(trained / "0", "--resume", "--seed", "5"))
    assert "holds another run" in refused(train(trained / "0", "--resume", "--preset", "pearl"))
    assert contents(trained / "0") == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot" in refused(train(tmp_path / "run"))
        words = ["evaluate", "random", "--family", NAVIGATION, *QUICK, "--json", tmp_path / "a.json"]
        assert "writing there is not allowed" in refused(metarl(*words))
    finally:
        tmp_path.chmod(0o700)


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
        ({"source": {}}, "unknown family or data set"),
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


# Machinery


@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        (Interrupted(Path("run"), 7), "interrupted after 7 iterations; resume with: "),
        (KeyboardInterrupt(), "interrupted; "),
    ],
)
def test_interrupted_training_says_how_to_resume(
    stopped: KeyboardInterrupt, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = registry.learner("maml-trpo")

    def stop(*_: Any) -> None:
        raise stopped

    monkeypatch.setattr(learner, "train", stop)
    said = train(tmp_path / "a run")
    assert said.code == 130
    assert said.err.startswith(f"metarl: {message}")
    assert said.err.count("\n") == 1
    assert f"--out '{tmp_path / 'a run'}'" in said.err
    assert said.err.endswith("--resume\n")
    quick = metarl("quickstart", "--out", tmp_path / "quick")
    assert quick.code == 130
    assert f"continue with: metarl quickstart --out {tmp_path / 'quick'}" in quick.err


def test_programming_mistakes_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: Any) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr("metarl.cli.listing.list_things", broken)
    with pytest.raises(ValueError, match="a bug"):
        metarl("list", "agents")


def test_scores_are_finite(trained: Path) -> None:
    assert np.isfinite(AdaptationCurve.load(trained / "0" / "curve.json").per_task).all()


# Films


def test_a_run_is_filmed(trained: Path, tmp_path: Path) -> None:
    before = contents(trained / "0")
    said = metarl("video", trained / "0", "--out", tmp_path / "film.gif", *QUICK[2:], "--task", 4)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0].startswith("before adaptation: mean return -")
    assert lines[1].startswith("after 1 gradient step: mean return -")
    assert lines[2] == f"wrote {tmp_path / 'film.gif'}"
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF8")
    assert contents(trained / "0") == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "film.avi"], "cannot film film.avi: the name must end in .mp4 or .gif"),
        (["--out", "nowhere/film.gif"], "cannot write nowhere/film.gif: there is no folder nowhere"),
        (["--out", "film.gif", "--task", "-1"], "--task is -1; it must be from 0 to 999"),
        (["--out", "film.gif", "--task", "1000"], "--task is 1000; it must be from 0 to 999"),
        (["--out", "film.gif", "--fps", "0"], "--fps is 0; it must be above 0, at most 240"),
        (["--out", "film.gif", "--steps", "-1"], "a budget needs steps >= 0 and episodes >= 1, got -1 and 40"),
        (
            ["--out", "film.gif", "--split", "tset"],
            f"unknown split of {NAVIGATION} 'tset'; did you mean test?",
        ),
    ],
)
def test_a_film_with_bad_options_is_refused(
    words: list[str], told: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(metarl("video", trained / "0", *words))
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_a_task_that_a_finite_family_lacks_is_refused(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--preset", "promp").code == 0
    error = refused(metarl("video", tmp_path / "run", "--out", tmp_path / "film.gif", "--task", "4"))
    assert f"--task is 4; {NAVIGATION} has 4 test tasks, 0 to 3" in error
    assert not (tmp_path / "film.gif").exists()


def test_what_is_no_filmable_run_is_refused(tmp_path: Path) -> None:
    film = ["--out", tmp_path / "film.gif"]
    assert "there is no run 'random'; give a run folder" in refused(metarl("video", "random", *film))
    assert "maml-trpo must be trained first" in refused(metarl("video", "maml-trpo", *film))
    assert "RUN comes first: metarl video RUN" in refused(metarl("video", *film))
    small = ["--iterations", "1", "--tasks", "2", "--checkpoint-every", "1"]
    assert metarl("train", "maml", "--dataset", "sinusoid", "--out", tmp_path / "sine", *small).code == 0
    assert "maml in " in (said := refused(metarl("video", tmp_path / "sine", *film)))
    assert "cannot be filmed: only agents that act in a task family can" in said


def test_without_opengl_a_film_of_mujoco_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--family", "metarl/HalfCheetahVelocity-v0", "--out", tmp_path / "run", *SMALL]
    assert metarl("train", "maml-trpo", *options).code == 0
    monkeypatch.setattr("metarl.envs.mujoco.engine.opengl_problem", lambda: "no library")
    said = refused(metarl("video", tmp_path / "run", "--out", tmp_path / "film.gif", *QUICK[2:]))
    assert "MuJoCo found no OpenGL (no library)" in said
    assert "MUJOCO_GL=osmesa" in said
    assert "libegl1" in said
    assert not (tmp_path / "film.gif").exists()
