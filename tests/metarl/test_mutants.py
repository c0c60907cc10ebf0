"""The list of deliberate breaks fits the code as it stands; `python scripts/mutants.py` makes them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = tomllib.loads((ROOT / "scripts" / "mutants.toml").read_text())["mutant"]


def test_each_has_a_name_of_its_own():
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["name"] for mutant in MUTANTS])
def test_the_text_to_break_and_the_test_that_notices_exist(mutant):
    assert (ROOT / mutant["file"]).read_text().count(mutant["old"]) == 1
    assert mutant["old"] != mutant["new"]
    path, function = re.fullmatch(r"(tests/[\w/]+\.py)::(\w+)(\[.+\])?", mutant["test"]).groups()[:2]
    assert f"def {function}(" in (ROOT / path).read_text()
