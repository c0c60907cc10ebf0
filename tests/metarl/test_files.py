"""Files written whole or not at all."""

import errno
import os

import pytest

from metarl.errors import UserError
from metarl.files import unfinished, write_atomically


def test_a_file_is_replaced(tmp_path):
    for data in (b"old", b"new"):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_writing_where_it_cannot_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*file: No such file"):
        write_atomically(tmp_path / "no" / "file", b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(UserError, match=r"^cannot write .*file: No space left on device$"):
        write_atomically(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_killed_process_leaves_the_old_file_and_what_it_had_written(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    write_atomically(tmp_path / "a[1]", b"old")
    write_atomically(tmp_path / "other", b"other")
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        write_atomically(tmp_path / "a[1]", b"new")
    assert (tmp_path / "a[1]").read_bytes() == b"old"
    [leftover] = unfinished(tmp_path / "a[1]")
    assert leftover.read_bytes() == b"new"
    assert unfinished(tmp_path / "other") == []


def test_two_processes_do_not_write_into_one_temporary_file(tmp_path, monkeypatch):
    path, replace = tmp_path / "file", os.replace

    def meanwhile(source, target):
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: 17)
        write_atomically(path, b"of the other")
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_atomically(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    order = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *args, s=step, do=original: (order.append(s), do(*args))[1])
    write_atomically(tmp_path / "file", b"data")
    assert order[:2] == ["fsync", "replace"]
