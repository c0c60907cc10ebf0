"""Files written whole or not at all."""

import ast
import errno
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.files import replacing, unfinished, write_atomically


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


def killed_while_writing(path):
    """A process that is killed when it has written and not yet renamed."""
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(path, b"new")
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the victims are forked")
@pytest.mark.parametrize("name", ["a[1]", "x" * 250])
def test_what_a_killed_process_leaves_the_next_writer_clears(tmp_path, name):
    write_atomically(tmp_path / name, b"old")
    write_atomically(tmp_path / "other", b"other")
    killed_while_writing(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"
    [leftover] = unfinished(tmp_path / name)
    assert leftover.read_bytes() == b"new"
    assert unfinished(tmp_path / "other") == []
    write_atomically(tmp_path / "other", b"more")
    assert leftover.exists()
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"of the first")
        second = threading.Thread(target=write_atomically, args=(tmp_path / name, b"of the second"))
        second.start()
        second.join()
        assert (tmp_path / name).read_bytes() == b"of the second"
        assert temporary.exists()  # what is being written is left alone
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"of the first", "other": b"more"}


def test_an_error_or_ctrl_c_while_writing_leaves_the_old_file_alone(tmp_path):
    write_atomically(tmp_path / "file", b"old")

    def fail(error):
        with replacing(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise error

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            fail(error)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_link_is_replaced_and_permissions_stay(tmp_path):
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert (tmp_path / "link").read_bytes() == b"new"
    (tmp_path / "target").chmod(0o640)
    write_atomically(tmp_path / "target", b"newer")
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o640
    (tmp_path / "target").chmod(0o440)
    if os.geteuid():  # root may write anywhere
        with pytest.raises(UserError, match=r"cannot write .*target: it is read-only"):
            write_atomically(tmp_path / "target", b"newest")
    with pytest.raises(UserError, match=r"cannot write .*: File name too long"):
        write_atomically(tmp_path / ("x" * 256), b"")


WRITERS = {"write_text", "write_bytes", "savefig", "save", "open_memmap", "copyfile", "copytree", "mkstemp", "replace"}
WRITERS |= {"NamedTemporaryFile", "write_frames", "SummaryWriter", "rename", "tofile", "dump", "imwrite", "mimsave"}
ELSEWHERE = {  # what does not replace a file, or writes under a temporary name, into memory, or where none remains
    "metarl/files.py": {"open", "replace", "write_bytes"},
    "metarl/reporting/films.py": {"save", "write_frames"},
    "metarl/reporting/figures/style.py": {"savefig"},
    "metarl/fewshot/datasets/cache.py": {"open_memmap"},
    "metarl/fewshot/datasets/downloads.py": {"open", "replace"},  # a part that is gone on with
    "metarl/runs/callbacks.py": {"SummaryWriter"},
    "metarl/runs/logs.py": {"open"},
    "metarl/runs/lock.py": {"os.open"},
    "metarl/runs/checkpoints.py": {"save"},
    "metarl/streams.py": {"open"},  # of nowhere
    "metarl/cli/seeds.py": {"open", "write_text"},  # in a folder that goes with the process
    "metarl/cli/processes.py": {"open"},  # of nowhere
}


def writers(path):
    """The calls in a file that write one: by name, or `open` with a mode that is not for reading."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        attribute = isinstance(call.func, ast.Attribute)
        name = call.func.attr if attribute else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if attribute else ""
        arguments = (*call.args, *(keyword.value for keyword in call.keywords))
        words = [str(value.value) for value in arguments if isinstance(value, ast.Constant)]
        if name == "open" and any(re.fullmatch(r"[rbt]*[wax+][bt+]*", word) for word in words):
            yield "open"
        elif name == "open" and owner == "os" and "O_CREAT" in ast.unparse(call):
            yield "os.open"
        elif name == "replace" and owner != "os":
            continue  # of a text or of a dataclass
        elif name in WRITERS and not (name == "save" and owner in ("curve", "checkpoints")):
            yield name


def test_nothing_else_in_the_package_writes_files():
    root = Path(__file__).resolve().parents[2]
    seen = {}
    for folder in ("metarl", "envs", "agents"):
        for path in sorted((root / folder).rglob("*.py")):
            if names := set(writers(path)):
                seen[path.relative_to(root).as_posix()] = names
    assert seen == ELSEWHERE


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
