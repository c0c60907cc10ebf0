from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import NAVIGATION, metarl, refused

POINT = ("--family", NAVIGATION, "--preset", "pearl")  # 20 steps
VALIDATED = ("--validate-every", 2, "--validation-tasks", 2)
AGENTS = {  # steps an iteration: support and query episodes; trials; environments
    "maml-trpo": (("--tasks", 2, "--episodes", 3, "--threads", 1), 2 * 3 * 2 * 20),
    "promp": (("--tasks", 2, "--episodes", 3, "--threads", 1), 2 * 3 * 2 * 20),
    "rl2": (("--trials", 4, "--trial-episodes", 2, "--minibatches", 2, "--hidden", 4), 4 * 2 * 20),
    "ppo-pretrained": (("--envs", 3, "--minibatches", 2, "--step-sizes", 0.1, 0.5), 3 * 20),
    "ppo-oracle": (("--envs", 3, "--minibatches", 2), 3 * 20),
}


def trained(agent: str, out: Path, *words: object, iterations: int = 4) -> Path:
    said = metarl(
        "train", agent, *POINT, *VALIDATED, *AGENTS[agent][0], "--iterations", iterations, "--out", out, *words
    )
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every agent that is trained, and of one a second seed that was resumed; not to be changed."""
    folder = tmp_path_factory.mktemp("trainings")
    for agent in AGENTS:
        trained(agent, folder / agent)
    trained("maml-trpo", folder / "resumed", "--seed", 1, iterations=2)
    trained("maml-trpo", folder / "resumed", "--seed", 1, "--resume")
    return folder


def test_trainings_of_all_agents_stand_beside_one_another(runs: Path, tmp_path: Path) -> None:
    picture, numbers, text = (tmp_path / name for name in ("a.svg", "a.json", "a.md"))
    files = ("--out", picture, "--json", numbers, "--markdown", text)
    folders = [runs / name for name in (*AGENTS, "resumed")]
    said = metarl("compare", "--training", *folders, *files, "--reach", -1000)
    assert said.code == 0, said.err
    document = json.loads(numbers.read_text())["training"]
    agents = {agent["agent"]: agent for agent in document["agents"]}
    assert document["source"] == {"name": NAVIGATION, "options": {"preset": "pearl"}}
    assert {name: agent["seeds"] for name, agent in agents.items()} == {"maml-trpo": [0, 1]} | {
        name: [0] for name in AGENTS if name != "maml-trpo"
    }
    for name, agent in agents.items():
        assert agent["iterations"] == [2, 4]
        each = AGENTS[name][1]
        assert agent["env_steps"] == [[2 * each, 4 * each]] * len(agent["seeds"]), name
        lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        kind = {"rl2": "last", "ppo-oracle": "0"}.get(name, "1")
        assert agent["after"][0] == [lines[i][f"return/validation_{kind}"] for i in (1, 3)]
        assert agent["reached"]["iteration"] == 2
        assert f"| {name} | {len(agent['seeds'])} |" in text.read_text()
        assert name in said.out
        assert name in picture.read_text()
    assert "environment steps of training" in picture.read_text()


def test_a_resumed_run_has_the_minutes_of_all_its_iterations(runs: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "a.json"
    named = f"half by half={runs / 'resumed'}"
    assert metarl("compare", named, "--training", "--out", tmp_path / "a.png", "--json", numbers).code == 0
    [agent] = json.loads(numbers.read_text())["training"]["agents"]
    assert agent["label"] == "half by half"
    lines = [json.loads(line) for line in (runs / "resumed" / "timings.jsonl").read_text().splitlines()]
    seconds = [line["sampling_s"] + line["update_s"] for line in lines]
    assert agent["minutes"] == [pytest.approx([sum(seconds[:2]) / 60, sum(seconds) / 60])]
    assert agent["env_steps"] == [[480, 960]]


BAD: list[tuple[list[str], str]] = [
    ([], "RUN comes first: metarl compare --training RUN"),
    (["nothing", "--out", "x.png"], "nothing holds no run"),
    (["maml-trpo", "--out", "x.txt"], "must end in .png, .svg, .pdf"),
    (["maml-trpo"], "--out"),
    (["maml-trpo", "--out", "x.png", "--profile", "y.png"], "unknown option '--profile'"),
    (["maml-trpo", "--out", "x.png", "--reach", "far"], "--reach: 'far' is not a number"),
    (["maml-trpo", "maml-trpo", "--out", "x.png"], "a training seed occurs twice in [0, 0]"),
    (["maml-trpo", "--out", "x.png", "--json", "maml-trpo/metrics.jsonl"], "would overwrite a file of the run"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_a_comparison_of_trainings(
    words: list[str], message: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(runs.iterdir())
    assert message in refused(metarl("compare", "--training", *words))
    assert sorted(runs.iterdir()) == before


def test_a_run_without_validations_is_named_with_the_option_to_train_with(runs: Path, tmp_path: Path) -> None:
    assert metarl("train", "ppo-scratch", *POINT, "--step-sizes", 0.1, "--out", tmp_path / "scratch").code == 0
    silent = trained("maml-trpo", tmp_path / "silent", "--validate-every", 0, iterations=1)
    error = refused(metarl("compare", "--training", runs / "rl2", silent, "--out", tmp_path / "x.png"))
    assert f"{silent} has no validation returns: train it with --validate-every N" in error
    error = refused(metarl("compare", "--training", tmp_path / "scratch", "--out", tmp_path / "x.png"))
    assert "ppo-scratch does not validate as it trains; leave it out" in error
    assert not (tmp_path / "x.png").exists()


def test_help_of_both_comparisons() -> None:
    said = metarl("compare", "--training", "--help")
    assert (said.code, "--reach RETURN" in said.out, "--profile" in said.out) == (0, True, False)
    assert "--training" in metarl("compare", "--help").out
