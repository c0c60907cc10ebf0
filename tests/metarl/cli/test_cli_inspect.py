"""`metarl inspect` as typed."""

import json

from command_line import metarl, refused
from PIL import Image


def picture(path, size=(9, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert(mode).save(path)


def test_a_folder_is_told_with_all_its_faults(tmp_path):
    for label in "abcdef":
        for i in range(3):
            picture(tmp_path / "d" / label / f"{i}.png", mode="L" if label == "a" else "RGB")
    for name in ("a/0.png", "f/2.png"):
        (tmp_path / "d" / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    (tmp_path / "d" / "a" / "notes.txt").write_text("x")
    said = metarl("inspect", tmp_path / "d", "--queries", "1", "--json", tmp_path / "said.json")
    assert said.code == 2
    told = json.loads((tmp_path / "said.json").read_text())
    assert told["classes"] == dict.fromkeys("abcdef", 3)
    assert told["sizes"] == {"9x8": 16}
    assert told["modes"] == {"L": 2, "RGB": 14}
    assert len(told["damaged"]) == 2
    assert told["passed_over"]["passed over as no pictures"] == ["a/notes.txt"]
    assert sum(map(len, told["splits"].values())) == 6
    assert told["tasks"]["train"] == {"ways": len(told["splits"]["train"]), "shots": 2}
    assert "a/0.png" in said.out
    assert "f/2.png" in said.out


def test_a_whole_folder_is_no_failure_and_another_is_one_line(tmp_path):
    for label in ("train/a", "train/b", "test/c", "test/d"):
        picture(tmp_path / "d" / label / "0.png")
    said = metarl("inspect", tmp_path / "d", "--queries", "1")
    assert said.code == 0
    assert "split as it lies in folders: train 2, validation 0, test 2" in said.out
    assert "too small for --queries 1" in said.out
    refused(metarl("inspect", tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    refused(metarl("inspect", tmp_path / "empty"))


def test_a_folder_that_is_none_is_told_of_no_option_that_inspect_has_not(tmp_path):
    said = refused(metarl("inspect", tmp_path / "nosuch"))
    assert "is not a folder" in said
    assert "--data-root" not in said
