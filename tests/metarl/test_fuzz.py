"""Some of the inputs of `scripts/fuzz.py`, a few through every door, and proof that each fault is noticed."""

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzing import judge
from fuzzing.case import Case, Place
from fuzzing.doors import DOORS

ROOT = Path(__file__).resolve().parents[2]
EACH = 4  # inputs a door


@pytest.fixture
def place(tmp_path):
    (tmp_path / "here").mkdir()
    return Place(tmp_path / "here", tmp_path / "kept", tmp_path / "MARKER")


def test_no_door_lets_in_what_hurts(tmp_path):
    words = ["--inputs", str(EACH * len(DOORS)), "--seed", "100", "--json", str(tmp_path / "fuzz.json")]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fuzz.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document = json.loads((tmp_path / "fuzz.json").read_text())
    assert document["doors"].keys() == DOORS.keys()
    for door, counts in document["doors"].items():
        assert counts["inputs"] == counts["refused"] + counts["accepted"] >= EACH, door
    refused = sum(counts["refused"] for counts in document["doors"].values())
    assert 0 < refused < EACH * len(DOORS)  # neither are all of them bad, nor none


def judged(monkeypatch, place, command, **options):
    """The verdict on a command that does something in the place of metarl's."""
    monkeypatch.setattr("metarl.cli.main", lambda words: command())
    return judge.judge(Case([], **options), place).kind


def test_a_traceback_is_noticed(monkeypatch, place):
    assert judged(monkeypatch, place, lambda: [][1]) == "traceback"


def test_an_exit_code_without_its_line_is_noticed(monkeypatch, place):
    assert judged(monkeypatch, place, lambda: 2) == "untidy"
    assert judged(monkeypatch, place, lambda: 1) == "untidy"


def test_escape_codes_are_noticed(monkeypatch, place):
    assert judged(monkeypatch, place, lambda: sys.stdout.write("\x1b[31mred") * 0) == "untidy"


def test_code_that_ran_is_noticed(monkeypatch, place):
    import pickle

    assert judged(monkeypatch, place, lambda: pickle.loads(place.payload()) or 0) == "code run"
    assert not place.marker.exists()


def test_a_file_that_was_overwritten_is_noticed(monkeypatch, place):
    place.write("mine.txt", "mine")
    assert judged(monkeypatch, place, lambda: place.write("mine.txt", "theirs") and 0) == "overwritten"
    assert judged(monkeypatch, place, lambda: place.write("mine.txt", "!") and 0, may_change=("*.txt",)) == "accepted"


def test_what_a_refused_input_leaves_is_noticed(monkeypatch, place):
    def refuse():
        place.write("run/config.json")
        sys.stderr.write("metarl: no\n")
        return 2

    assert judged(monkeypatch, place, refuse) == "untidy"


def test_what_hangs_is_ended_and_noticed(monkeypatch, place):
    monkeypatch.setattr(judge, "LONGEST", 0.2)
    os.mkfifo(place.folder / "pipe")
    assert judged(monkeypatch, place, lambda: (place.folder / "pipe").read_bytes()) == "slow"


def test_what_asks_for_time_alone_is_interrupted(monkeypatch, place):
    def work():
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return 130

    assert judged(monkeypatch, place, work, patience=0.1) == "accepted"


def test_memory_is_noticed(monkeypatch, place):
    def fill():
        with mmap.mmap(-1, 1 << 26) as pages:  # no memory that this process has freed before
            for page in range(0, len(pages), mmap.PAGESIZE):
                pages[page] = 1
        return 0

    monkeypatch.setattr(judge, "LARGEST", 1 << 20)
    assert judged(monkeypatch, place, fill) == "large"
