"""Runs and files that somebody else has sent: they import nothing, and are text, or refused in one line."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import metarl, refused
from fuzzing.doors import damage

from metarl import naming
from metarl.errors import UserError, printable

NAVIGATION = "metarl/Navigation2D-v0"
SMALL = ["--iterations", "1", "--checkpoint-every", "1", "--tasks", "2", "--episodes", "2", "--threads", "1"]
QUICK = ["--tasks", "2", "--episodes", "2", "--steps", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", str(folder), *SMALL).code == 0
    assert metarl("evaluate", str(folder), *QUICK).code == 0
    return folder


@pytest.fixture
def received(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the run, beside a module that leaves a mark where it is imported."""
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    mark = "open('MARK', 'w').close()\n\n\nclass Thing:\n    pass\n"
    (tmp_path / "evil.py").write_text(mark)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as `python -m metarl` has it
    monkeypatch.setattr(naming, "_consented", set())
    yield tmp_path / "run"
    sys.modules.pop("evil", None)


def forge(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads((run / "config.json").read_text())
    change(record)
    (run / "config.json").write_text(json.dumps(record))


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "learner": lambda record: record.update(learner="evil"),
    "learner by name": lambda record: record.update(learner="evil:Thing"),
    "where": lambda record: record["choices"].update(where="evil:Thing"),
    "source": lambda record: record["source"].update(name="evil:Thing"),
    "network": lambda record: record["config"].update(network="evil:Thing"),
    "nested": lambda record: record["config"].update(network=["evil:Thing"]),
    "of Python's own": lambda record: record["config"].update(network="os:abort"),
}
READERS = [
    ["evaluate", "run", *QUICK],
    ["evaluate", "run", "--data-root", "."],
    ["video", "run", "--out", "x.gif"],
    ["train", "--resume", "run"],
    ["train", "--config", "run", "--out", "other"],
    ["train", "--config", "run/config.json", "--out", "other"],
    ["train", "maml-trpo", "--family", NAVIGATION, "--out", "run", "--resume", *SMALL],
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_run_imports_nothing_that_it_alone_names(received: Path, forged: str) -> None:
    forge(received, FORGED[forged])
    for words in READERS:
        said = refused(metarl(*words))
        assert "names code that is not metarl's" in said or "holds another run" in said
    if forged == "where":
        assert metarl("report", "run", "--out", "page").code == 0
    assert not Path("MARK").exists()
    assert "evil" not in sys.modules


def test_what_is_trusted_is_imported(received: Path) -> None:
    forge(received, FORGED["network"])
    said = refused(metarl("evaluate", "run", *QUICK, "--trust"))
    assert "names code" not in said
    assert Path("MARK").exists()


def test_what_is_typed_may_be_named_in_a_file_too(received: Path) -> None:
    Path("options.yaml").write_text("network: evil:Thing")
    words = ["train", "maml-trpo", "--config", "options.yaml", "--family", NAVIGATION, "--out", "other", *SMALL]
    assert "names code" not in refused(metarl(*words, "--network", "evil:Thing"))
    assert Path("MARK").exists()


def test_in_python_too(received: Path) -> None:
    import metarl as suite

    forge(received, FORGED["network"])
    with pytest.raises(UserError, match="names code that is not metarl's, 'evil:Thing'"):
        suite.load(received)
    assert not Path("MARK").exists()
    with pytest.raises(UserError, match="evil:Thing"):
        suite.load(received, trust=True)
    assert Path("MARK").exists()


@pytest.mark.parametrize("text", ["agent: evil", "agent: evil:Thing", "network: evil:Thing", "callback: [evil:Thing]"])
def test_a_file_of_options_imports_nothing_that_it_alone_names(received: Path, text: str) -> None:
    Path("options.yaml").write_text(text)
    agent = [] if text.startswith("agent") else ["maml-trpo"]
    words = ["train", *agent, "--config", "options.yaml", "--family", NAVIGATION, "--out", "other", *SMALL]
    assert "options.yaml names code that is not metarl's, 'evil" in refused(metarl(*words))
    assert not Path("MARK").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("!!python/object/apply:os.system ['touch MARK']", "could not determine a constructor"),
        ("a: &a [1]\nb: *a", "an alias, which is not read"),
        ("a: &a {k: 1}\nb: {<<: *a}", "an alias, which is not read"),
        ("hidden: " + damage.nested(3000), "too deep"),
        ("iterations: 0x" + "f" * 3000, "an integer of more than 64 bits"),
        ('"\\ud800": 1', "cannot read options"),
        ("x" * 70_000, "at most 65,536 are read"),
    ],
)
def test_a_hostile_file_of_options_is_one_line(received: Path, text: str, told: str) -> None:
    Path("options.yaml").write_text(text)
    words = ["train", "maml-trpo", "--config", "options.yaml", "--family", NAVIGATION, "--out", "other"]
    assert told in refused(metarl(*words))
    assert not Path("MARK").exists()


@pytest.mark.parametrize(
    "line",
    [
        '{"iteration": 0, "return/after": "1"}',
        '{"iteration": 0, "return/after": NaN}',
        '{"iteration": 0, "return/after": 1e999}',
        '{"iteration": 0, "return/after": [1]}',
        '{"iteration": 0, "return/after": true}',
        '{"iteration": 0, "return/after": ' + "9" * 400 + "}",
        '{"iteration": 0.5}',
        '{"iteration": true}',
        '{"return/after": 1}',
        "[]",
        damage.nested(5000),
        '{"iteration": 3}\n{"iteration": 3}',
        '{"iteration": 3}\n{"iteration": 2}',
        '{"iteration": -1}',
        '{"iteration": 0, "' + "x" * (1 << 20) + '": 1}',
    ],
    ids=lambda line: line[:40],
)
def test_a_log_that_no_training_wrote_is_one_line(received: Path, line: str) -> None:
    (received / "metrics.jsonl").write_text(f"{line}\n")
    assert "metrics.jsonl is damaged: line" in refused(metarl("report", "run", "--out", "page"))
    assert not Path("page/index.html").exists()


def test_no_name_moves_the_cursor(received: Path) -> None:
    name = " ".join(name for name in damage.NAMES[:-1] if len(name) < 100)
    assert printable(name) != name
    curve = json.loads((received / "curve.json").read_text())
    (received / "curve.json").write_text(json.dumps(curve | {"agent": name, "family": name, "protocol": name}))
    said = metarl("compare", "run", "--out", "x.svg", "--markdown", "x.md")
    assert said.code == 0
    assert metarl("report", "run", "--out", "page").code == 0
    for each in (said.out, said.err, Path("x.md").read_text(), Path("page/index.html").read_text()):
        assert not [each[max(0, i - 60) : i + 9] for i, x in enumerate(each) if x != "\n" and not x.isprintable()]
    for words in (["evaluate", name], ["compare", "run", "--out", f"{name}.svg"], [name]):
        assert not set(refused(metarl(*words))) & {"\x1b", "\x9b", "\u202e", "\u200b", "\0"}


def test_a_name_as_long_as_a_file_is_drawn_and_said_in_part(received: Path) -> None:
    curve = json.loads((received / "curve.json").read_text())
    long = dict.fromkeys(("agent", "family", "protocol", "preset"), "x" * 100_000)
    (received / "curve.json").write_text(json.dumps(curve | long))
    assert metarl("compare", "run", "--out", "x.svg").code == 0
    assert len(refused(metarl("evaluate", "x" * 100_000))) < 5000
