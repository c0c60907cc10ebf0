"""The processes of a training: what they share out, add up and tell one another."""

import subprocess
import sys

import pytest
import rank_work
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_processes import world

from metarl.errors import NonFiniteError, UserError
from metarl.ranks import ALONE, Ranks, present


@given(n=st.integers(1, 200), size=st.integers(1, 64))
def test_every_task_is_somebodys_and_nobody_has_two_more_than_another(n, size):
    if n < size:
        with pytest.raises(ValueError, match="cannot be shared out"):
            Ranks(0, size).share(n)
        return
    shares = [range(n)[Ranks(rank, size).share(n)] for rank in range(size)]
    assert [task for share in shares for task in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_sent_and_torch_distributed_is_not_started():
    tensor = torch.ones(2)
    assert ALONE.sum(tensor)[0] is tensor
    assert ALONE.gather(1) == [1]
    assert ALONE.broadcast(2) == 2
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert ALONE.sums({"a": 1}) == {"a": 1}
    assert ALONE.first(lambda: 3) == ALONE.together(lambda: 3) == 3
    with pytest.raises(UserError, match="mine"):
        ALONE.together(lambda: (_ for _ in ()).throw(UserError("mine")))
    ALONE.leave()
    assert not torch.distributed.is_initialized()
    code = "import sys, metarl.ranks as r; r.present(); assert not {'torch', 'torch.distributed'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [2, 3])
def test_each_way_of_telling_the_others(size):
    results = world(size, rank_work.everything)
    shares = {2: [slice(0, 2), slice(2, 5)], 3: [slice(0, 1), slice(1, 3), slice(3, 5)]}[size]
    for rank, seen in enumerate(results):
        assert seen == {
            "share": shares[rank],
            "sum": ([[sum(10.0**r for r in range(size))] * 3] * 2, sum(range(size))),
            "sums": None,
            "double": {"x": pytest.approx(0.1 * sum(range(size)), abs=1e-16), "y": size},
            "gather": [f"rank {r}" for r in range(size)],
            "broadcast": {"from": 0},
            "any": (False, True),
            "together": rank,
            "first": ("made by", 0),
        }


def test_an_error_of_one_rank_is_everybodys():
    first, second = world(2, rank_work.errors)
    assert second[3] == ("OfTwoArgumentsError", "a: b", False)  # on its own rank as it was raised
    assert second[:3] + second[4:] == first[:3] + first[4:]
    assert first == [
        ("UserError", "no such file", True),
        (
            "NonFiniteError",
            "a parameter is not finite, in task 2; look at the data, or at the network that gives it for them; "
            "a run that diverged is to be trained again",
            True,
        ),
        ("ValueError", "of rank 0", False),
        ("RuntimeError", "OfTwoArgumentsError: a: b", False),
        ("UserError", "the folder holds a run", True),
    ]


def test_a_rank_that_is_killed_is_noticed_by_the_others():
    first, dead = world(2, rank_work.one_dies)
    assert isinstance(dead, EOFError)
    assert "rank 0 of 2 lost another process of this training" in first


def test_tasks_of_a_share_are_named_by_their_places_in_the_whole():
    error = NonFiniteError("x", tasks=[0, 1], of=2)
    Ranks(1, 2).number(error, 5)
    assert (error.tasks, error.of) == ([2, 3], 5)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2, which it must be below"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE 0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "one"}, "LOCAL_RANK is 'one'"),
    ],
)
def test_an_environment_that_is_no_torchruns_is_refused(monkeypatch, environment, words):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert present() is ALONE
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        present()


def test_torchruns_environment_is_read(monkeypatch):
    whole = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    assert present() == Ranks(3, 4, 1)
