"""What a run goes on from after its files were deleted or damaged; and what it does not take for its own."""

import contextlib
import json
import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import plant, plant_bytes
from test_runs import Config, Family, create, refusal, resume, train

from metarl.errors import UserError
from metarl.runs import checkpoints
from metarl.runs.recovery import RecoveryWarning
from metarl.runs.run import Run

LONG = Config(iterations=9, checkpoint_every=2)
FILES = ["config.json", "metrics.jsonl", "timings.jsonl", "checkpoints/latest.json", "last", "before", "checkpoints"]
DAMAGES = ["delete", "empty", "cut", "flip", "garbage", "append", "torn", "folder", "pipe", "loop", "file"]


class CrashError(Exception):
    """Ends a training as a crash would."""


def crash(iteration):
    if iteration == 7:
        raise CrashError


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A run that crashed after 7 of 9 iterations, with checkpoints of 6 and 4; and what it should come to."""
    folder = tmp_path_factory.mktemp("crashed")
    whole = create(folder / "whole", config=LONG)
    place = train(whole)
    run = create(folder / "run", config=LONG)
    with pytest.raises(CrashError):
        train(run, crash)
    run.close()
    return folder / "run", place, (folder / "whole/metrics.jsonl").read_bytes()


def contents(folder):
    """Every file of a folder, with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def copied(crashed, folder):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(crashed[0], folder)
    return folder


def ends_as_uninterrupted(folder, crashed):
    run = resume(folder, config=LONG)
    equal = train(run).equal(crashed[1]) and (folder / "metrics.jsonl").read_bytes() == crashed[2]
    run.close()
    return equal


def file_named(folder, name):
    if name in ("last", "before"):
        return folder / "checkpoints" / checkpoints.names(folder / "checkpoints")[name == "before"]
    return folder / name


def damage(path, how, where):
    """Damage a file, or a folder's files by removing them; `where` in [0, 1) says the place."""
    if not path.exists():
        return
    if path.is_dir():
        shutil.rmtree(path)
        if how == "file":
            path.write_bytes(b"a file")
        return
    if how in ("folder", "pipe", "loop"):
        path.unlink()
        {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path.name)}[how]()
        return
    data = path.read_bytes()
    at = int(where * len(data))
    if how == "delete":
        path.unlink()
        return
    changed = {
        "empty": b"",
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else data,
        "garbage": data[:at] + b"\n\x00\xff}{" + data[at:],
        "file": b"{}",
        "append": data + b'{"iteration": 7, "loss": ',
        "torn": data[:at] + b"\x00" * (len(data) - at),
    }[how]
    path.write_bytes(changed)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(FILES), st.tuples(st.sampled_from(DAMAGES), st.floats(0, 1, exclude_max=True)), min_size=1
    )
)
@pytest.mark.filterwarnings("ignore::metarl.runs.recovery.RecoveryWarning")
def test_whatever_is_lost_a_run_ends_as_uninterrupted_or_nothing_is_touched(crashed, tmp_path, damages):
    folder = copied(crashed, tmp_path / "run")
    paths = {name: file_named(folder, name) for name in FILES}
    for name, (how, where) in damages.items():
        # A digit that the disk has changed in config.json is a run of another kind: that is refused field by field.
        damage(paths[name], "cut" if name == "config.json" and how in ("flip", "torn", "append") else how, where)
    before = contents(folder)
    with contextlib.suppress(UserError):
        Run.open(folder, Config).restore()
    assert contents(folder) == before
    try:
        resumed, line = ends_as_uninterrupted(folder, crashed), ""
    except UserError as error:
        resumed, line = False, str(error)
    assert resumed or contents(folder) == before
    assert resumed != bool(line)
    assert "\n" not in line


LOST = "latest.json is missing; used instead: .*00000006-.*, of 6 iterations"


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (["checkpoints/latest.json"], LOST),
        (["last"], "00000006-.* is missing; used instead: .*00000004-.*, of 4 iterations"),
        (["last", "checkpoints/latest.json"], "latest.json is missing; used instead: .*00000004-.*, of 4 iterations"),
        (["timings.jsonl"], "timings.jsonl is damaged: 6 of its 6 lines are lost"),
    ],
)
def test_what_is_lost_is_said_in_one_line_and_the_newest_whole_checkpoint_used(crashed, tmp_path, lost, said):
    folder = copied(crashed, tmp_path / "run")
    for path in [file_named(folder, name) for name in lost]:
        path.unlink()
    before = contents(folder)
    if "timings.jsonl" not in lost:
        with pytest.warns(RecoveryWarning, match=said) as warned:
            restored = Run.open(folder, Config).restore()
        assert len(warned) == 1
        assert restored is not None
        assert contents(folder) == before
    with pytest.warns(RecoveryWarning, match=said) as warned:
        assert ends_as_uninterrupted(folder, crashed)
    assert len(warned) == 1


def test_a_log_too_short_for_the_last_checkpoint_goes_back_to_the_one_before(crashed, tmp_path):
    folder = copied(crashed, tmp_path / "run")
    log = folder / "metrics.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.warns(RecoveryWarning, match=r"metrics.jsonl is damaged: it is shorter .*, of 4 iterations"):
        assert ends_as_uninterrupted(folder, crashed)


@pytest.mark.parametrize("how", ["delete", "one digit"])
def test_a_log_that_no_checkpoint_fits_is_refused_and_the_run_is_still_read(crashed, tmp_path, how):
    folder = copied(crashed, tmp_path / "run")
    log = folder / "metrics.jsonl"
    log.unlink() if how == "delete" else log.write_bytes(log.read_bytes().replace(b"0.", b"1.", 1))
    before = contents(folder)
    assert "metrics.jsonl is damaged: it is" in refusal(lambda: resume(folder, config=LONG))
    assert contents(folder) == before
    restored = Run.open(folder, Config).restore()
    assert restored is not None
    assert restored[0] == 6


@pytest.mark.parametrize("name", ["last", "before", "checkpoints/latest.json", "metrics.jsonl"])
def test_a_folder_in_a_files_place_is_refused_before_the_training_meets_it(crashed, tmp_path, name):
    folder = copied(crashed, tmp_path / "run")
    path = file_named(folder, name)
    path.unlink()
    path.mkdir()
    before = contents(folder)
    assert path.name in refusal(lambda: resume(folder, config=LONG))
    assert contents(folder) == before


def test_without_any_checkpoint_a_run_that_had_one_is_not_begun_anew(crashed, tmp_path):
    folder = copied(crashed, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    before = contents(folder)
    assert "has logged 7 iterations, but its checkpoints are missing" in refusal(lambda: resume(folder, config=LONG))
    assert contents(folder) == before


def test_logged_iterations_that_no_checkpoint_holds_are_said_to_be_done_again(crashed, tmp_path):
    folder, early = tmp_path / "run", Config(iterations=9, checkpoint_every=20)
    run = create(folder, config=early)
    with pytest.raises(CrashError):
        train(run, crash)
    run.close()
    with pytest.warns(RecoveryWarning, match="has no checkpoint: it begins anew, 7 logged iterations too"):
        run = resume(folder, config=early)
    assert train(run).equal(crashed[1])
    assert (folder / "metrics.jsonl").read_bytes() == crashed[2]


def test_a_file_in_a_run_s_place_is_named(crashed):
    assert "config.json is no folder; give the one" in refusal(lambda: Run.open(crashed[0] / "config.json"))


def test_a_run_that_was_killed_between_a_checkpoint_and_its_manifest_loses_neither(crashed, tmp_path):
    folder = copied(crashed, tmp_path / "run")
    before = file_named(folder, "before")
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:4]
    manifest = json.loads((folder / "checkpoints/latest.json").read_text())
    sha = checkpoints.read(before.parent, before.name)[1]
    older = {"file": before.name, "sha256": sha, "iteration": 4, "metrics_bytes": len(b"".join(lines))}
    (folder / "checkpoints/latest.json").write_text(json.dumps(manifest | older))
    assert ends_as_uninterrupted(folder, crashed)  # the manifest is right, and the newer one is made again


def test_a_moved_or_linked_run_and_one_with_a_clock_that_went_back_go_on(crashed, tmp_path, monkeypatch):
    folder = copied(crashed, tmp_path / "run")
    for path in folder.rglob("*"):
        os.utime(path, (0, 0) if "0006" in path.name else None)
    moved = folder.rename(tmp_path / "moved [1]*")
    (tmp_path / "link").symlink_to(moved, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert Run.open("link/").restore() is not None
    (moved / "checkpoints/latest.json").unlink()
    with pytest.warns(RecoveryWarning, match="of 6 iterations"):
        assert ends_as_uninterrupted(tmp_path / "link", crashed)
    assert moved.is_dir()


# Whose it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learner": "jump"}, "learner is 'jump' there and 'walk' here"),
        ({"seed": 4}, "seed is 4 there and 3 here"),
        ({"source": Family(arms=6)}, "source.options.arms is 6 there and 5 here"),
        ({"config": Config(iterations=9, hidden=(3, 5))}, r"config.hidden is [3, 5] there and [3, 4] here"),
        ({"config": Config(iterations=10)}, "config.iterations is 10 there and 9 here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(crashed, tmp_path, changes, named):
    folder = copied(crashed, tmp_path / "run")
    other = create(tmp_path / "other", **changes)
    other.checkpoint(8, {"place": torch.zeros(3, dtype=torch.float64), "visits": [0]})
    shutil.copytree(tmp_path / "other/checkpoints", folder / "checkpoints", dirs_exist_ok=True)
    before = contents(folder)
    for manifest in (True, False):
        (folder / "checkpoints/latest.json").unlink(missing_ok=not manifest)
        for action in (Run.open(folder, Config).restore, lambda: resume(folder, config=LONG)):
            assert f"is of another run: {named}" in refusal(action)
    assert contents(folder) == {name: data for name, data in before.items() if name.name != "latest.json"}


def test_a_checkpoint_under_another_name_or_of_another_version_is_refused(crashed, tmp_path):
    folder = copied(crashed, tmp_path / "run")
    (folder / "checkpoints/latest.json").unlink()
    last = file_named(folder, "last")
    last.rename(last.with_name(last.name.replace("00000006", "00000008")))
    assert "its name says 8 iterations, it 6" in refusal(Run.open(folder, Config).restore)
    folder = copied(crashed, tmp_path / "run")
    content = checkpoints.unpack(file_named(folder, "last").read_bytes(), last)
    plant_bytes(folder, 6, checkpoints.pack(content | {checkpoints.FORMAT: 3}))
    assert "this metarl reads version 2" in refusal(Run.open(folder, Config).restore)


def test_a_run_of_an_earlier_version_goes_on_with_its_manifest_and_not_without(crashed, tmp_path):
    folder = copied(crashed, tmp_path / "run")
    state = Run.open(folder, Config).restore()[1]
    lines = {
        name: (folder / name).read_bytes().splitlines(keepends=True) for name in ("metrics.jsonl", "timings.jsonl")
    }
    for name, rows in lines.items():
        (folder / name).write_bytes(b"".join(rows[:6]))
    plant(folder, 6, state)
    for name, rows in lines.items():
        (folder / name).write_bytes(b"".join(rows))
    old = copied((folder,), tmp_path / "old")
    assert ends_as_uninterrupted(folder, crashed)
    (old / "checkpoints/latest.json").unlink()
    with pytest.warns(RecoveryWarning):
        assert Run.open(old, Config).restore() is not None
    assert "does not say which logs it had" in refusal(lambda: resume(old, config=LONG))


@pytest.mark.parametrize("spoil", [{"seed": torch.zeros(3)}, {"config": {"tasks": [torch.zeros(2)]}}, {"seed": (0,)}])
def test_a_checkpoint_that_says_whose_it_is_in_tensors_is_refused(crashed, tmp_path, spoil):
    folder = copied(crashed, tmp_path / "run")
    content = torch.load(file_named(folder, "last"), weights_only=True)
    content["run"] |= spoil
    plant_bytes(folder, 6, checkpoints.pack(content))
    before = contents(folder)
    assert "it does not say whose it is" in refusal(lambda: resume(folder, config=LONG))
    assert contents(folder) == before
