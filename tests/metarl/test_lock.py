"""One process writes into a run folder, and the lock dies with it."""

import errno
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from test_runs import Config, create, refusal, resume, train

from metarl.errors import UserError
from metarl.runs import lock
from metarl.runs.lock import LockWarning
from metarl.runs.record import is_fresh
from metarl.runs.run import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the other processes are forked")


@contextmanager
def another_process(body):
    """A forked process that has done something and stays; its id."""
    ready, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kept = body()  # noqa: F841 - what holds the lock
            os.write(say, b"y")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(say)
    try:
        assert os.read(ready, 1) == b"y"
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_process_is_refused_in_one_line_and_may_read(tmp_path):
    train(create(tmp_path / "run"))
    with another_process(lambda: resume(tmp_path / "run")) as child:
        before = contents(tmp_path / "run")
        for config in (Config(), Config(iterations=9)):
            line = refusal(lambda config=config: resume(tmp_path / "run", config=config))
            assert f"run is being trained by process {child} on {os.uname().nodename} since 20" in line
        assert Run.open(tmp_path / "run", Config).restore() is not None
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        assert train(resume(tmp_path / "copy")) is not None
        assert contents(tmp_path / "run") == before
    train(resume(tmp_path / "run"))  # it has been killed, and its file is still there


def test_of_processes_that_begin_one_run_at_once_one_does(tmp_path):
    start, go = os.pipe()
    children = []
    for _ in range(6):
        if (child := os.fork()) == 0:
            os.close(go)
            os.read(start, 1)
            status = 2
            try:
                kept = create(tmp_path / "run")
                status = 0
                time.sleep(0.5)  # a training takes a while
                kept.close()
            except UserError:
                status = 1
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert statuses == [0, 1, 1, 1, 1, 1]
    assert Run.open(tmp_path / "run").learner == "walk"
    os.close(start)


def refused_in_a_child(folder):
    """Whether a forked child may not write into a run."""
    child = os.fork()
    if child == 0:
        try:
            resume(folder)
        except UserError:
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_neither_keeps_nor_releases_the_lock(tmp_path):
    run = create(tmp_path / "run")

    def released():
        run.close()  # of its parent's

    with another_process(released), another_process(lambda: None):
        with another_process(lambda: None):
            assert refused_in_a_child(tmp_path / "run")
        run.close()  # children are alive, and the lock is free
        assert not (tmp_path / "run" / lock.NAME).exists()
        with another_process(lambda: resume(tmp_path / "run")):
            assert "is being trained" in refusal(lambda: resume(tmp_path / "run"))


def test_the_lock_of_a_killed_process_with_a_living_child_is_free(tmp_path):
    def with_child():
        kept = create(tmp_path / "run")
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        return kept

    with another_process(with_child) as child:
        assert f"process {child}" in refusal(lambda: resume(tmp_path / "run"))
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        resume(tmp_path / "run").close()


def test_reading_or_copying_the_locks_file_does_not_release_it(tmp_path):
    run = create(tmp_path / "run")
    (tmp_path / "run" / lock.NAME).read_bytes()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert refused_in_a_child(tmp_path / "run")
    run.close()


def test_one_process_trains_a_run_once_at_a_time(tmp_path):
    seen = []

    def another(iteration):
        if iteration == 1:
            thread = threading.Thread(target=lambda: seen.append(refusal(lambda: resume(tmp_path / "run"))))
            thread.start()
            thread.join()

    train(create(tmp_path / "run"), another)
    assert "is being trained by this very process" in seen[0]
    kept = resume(tmp_path / "run")  # as after Ctrl-C in a notebook, where what was running is still referred to
    train(resume(tmp_path / "run"))
    assert kept.saved == 6


def test_a_lock_is_no_clutter(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / lock.NAME).write_text("{")  # of a process that was killed
    assert is_fresh(folder)
    run = create(folder)
    run.withdraw()
    assert not folder.exists()
    run = create(folder)
    run.close()
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_somebody_put_in_the_locks_place_is_not_written_to(tmp_path, kind):
    folder, other = tmp_path / "run", tmp_path / "other"
    create(folder).close()
    other.write_text("mine")
    place = folder / lock.NAME
    {
        "link": lambda: place.symlink_to(other),
        "hard link": lambda: place.hardlink_to(other),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }[kind]()
    if kind == "folder":
        assert "cannot write" in refusal(lambda: resume(folder))
    else:
        resume(folder).close()
    assert other.read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_it_is_said_and_the_work_goes_on(tmp_path, monkeypatch, number):
    def none(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with pytest.warns(LockWarning, match="run cannot be locked") as warned:
        train(create(tmp_path / "run"))
    assert len(warned) == 1
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.warns(LockWarning, match="this system has no such locks"):
        resume(tmp_path / "run")


def test_a_forged_lock_says_nothing_of_its_own(tmp_path):
    create(tmp_path / "run").close()
    place = tmp_path / "run" / lock.NAME
    for text in ('{"host": "\\u001b[31mred\\nline", "pid": 1, "since": "x"}', "[" * 900, "{}", "\udcff", ""):

        def locked(text=text):
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.write(file, text.encode("utf-8", "surrogateescape"))
            lock.fcntl.flock(file, lock.fcntl.LOCK_EX)
            return file

        with another_process(locked):
            line = refusal(lambda: resume(tmp_path / "run"))
        assert "is being trained by" in line
        assert "\x1b" not in line
