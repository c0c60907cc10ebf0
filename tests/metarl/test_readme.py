"""The README's Python runs as written, and what the documents name is there."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

from metarl import registry

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_is_fifteen_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15 + 1  # fifteen and the last print


def test_a_family_of_ones_own_is_thirty_lines():
    (block,) = [block for block in BLOCKS if "GymFamily" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("i", range(len(BLOCKS)))
def test_readme_block_runs(i, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[i], f"README.md, block {i}", "exec"), names)
    if "Pendulums" in names:
        family = names["family"]
        assert family.fixed("ood", 20).arrays["gravity"].min() >= 12
        assert names["agent"].family is family
        before, after = capsys.readouterr().out.strip("[]\n").split()
        assert -1500 < float(before) < -100
        assert -1500 < float(after) < -100
    if i == 0:
        mean = names["curve"].mean
        assert mean.shape == (4,)
        assert mean[1] > mean[0] + 10
        assert (tmp_path / "curve.png").stat().st_size > 10_000


def commands():
    """Every `metarl train` of the README, of scripts/tables.toml and of the READMEs of results/, as words."""
    for table in tomllib.loads((ROOT / "scripts/tables.toml").read_text()).values():
        for agent in table.get("agents", ()):
            if "train" in agent:
                yield [agent["name"], *table["source"].split(), *agent["train"].split()]
    for path in (ROOT / "README.md", *(ROOT / "results").glob("*/README.md")):
        for line in re.findall(r"^metarl train ([^#\n]+)", path.read_text(), re.MULTILINE):
            yield line.split()


def test_what_is_to_be_repeated_names_its_strategy():
    """`auto` chooses by timing: another machine would train other numbers."""
    timed = [name for name in registry.agents() if hasattr(registry.learner(name).Config(), "strategy")]
    assert len(timed) == 5
    found = [words for words in commands() if words[0] in timed]
    assert len(found) > 20
    for words in found:
        assert words[words.index("--strategy") + 1] in ("loop", "threads", "vmap"), words


def documents():
    """Every document of the repository, and every module, whose docstrings name others."""
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    yield from (ROOT / "results").glob("*/README.md")
    for folder in ("metarl", "envs", "agents", "examples", "scripts"):
        yield from (ROOT / folder).rglob("*.py")


ENTRY_POINTS = {"metarl.families", "metarl.datasets"}  # groups of entry points, no modules


def missing(text):
    """The modules (with what they define) and files that a text names and that are not there."""
    for name in set(re.findall(r"\bmetarl(?:\.[A-Za-z_]\w*)+", text)) - ENTRY_POINTS:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            yield name
    for name in set(
        re.findall(r"(?<![\w./<{])(?:metarl|envs|agents|scripts|tests|examples)/[\w/]+\.(?:py|toml|sh)\b", text)
    ):
        if not (ROOT / name).exists():
            yield name


def test_what_is_gone_is_noticed():
    gone = (
        "`metarl.memory`, metarl.cli.nothing.x, `agents/bandit_solvers.py`; metarl.load, envs/chart.py, my/agents/x.py"
    )
    assert set(missing(gone)) == {"metarl.memory", "metarl.cli.nothing.x", "agents/bandit_solvers.py"}


def test_what_documents_name_is_there():
    told = {path.relative_to(ROOT).as_posix(): list(missing(path.read_text(encoding="utf-8"))) for path in documents()}
    assert len(told) > 150
    assert not {path: names for path, names in told.items() if names}
