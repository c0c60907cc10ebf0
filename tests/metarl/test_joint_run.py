"""One run of several processes: rank 0 has the folder, all begin, stop and fail together."""

import json

import pytest
import rank_runs
import torch
from rank_processes import world

from metarl import parallel
from metarl.agents import maml_trpo, ppo_scratch
from metarl.errors import UserError
from metarl.learning.sharing import check_shares
from metarl.parallel import choose_device
from metarl.ranks import ALONE, Ranks


def test_ranks_stop_resume_and_end_together_and_rank_0_alone_writes(tmp_path):
    first, second = world(2, rank_runs.life_of_a_run, str(tmp_path))
    for seen in (first, second):
        assert seen["stopped"] == (6.0, 2, "of rank 0")  # 3 an iteration; rank 0's choice is everybody's
        assert seen["again"][0] == "UserError"
        assert "already holds a run" in seen["again"][1]
        assert seen["other"][0] == "UserError"  # the ranks ask for different runs
        assert "config.iterations is 6 there and 7 here" in seen["other"][1]
        assert seen["interrupted"][0][0] == "Interrupted"  # the signal was the last rank's
        assert seen["interrupted"][1] == 4
        assert seen["callback"] == "OSError"
        assert seen["done"] == 18.0
    assert {"config.json", "metrics.jsonl", "checkpoints"} <= set(first["files"])
    assert second["files"] == []
    rows = (tmp_path / "rank 0" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["x"] for row in rows] == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0]


def test_what_fails_on_one_rank_ends_all_and_spoils_no_checkpoint(tmp_path):
    first, second = world(2, rank_runs.failures, str(tmp_path))
    assert first["broken"] == second["broken"] == ("NonFiniteError", 2)
    kept = torch.load(tmp_path / "a" / "nonfinite.pt", weights_only=True)
    assert (kept["positions"], kept["iteration"], kept["data"]["obs"].tolist()) == ([1], 3, [1.0, 1.0])
    assert first["drift"] == second["drift"]
    (kind, words), saved = first["drift"]
    assert (kind, saved) == ("DriftError", None)
    assert "after 1 iterations the state of rank 1 is no longer rank 0's" in words


def test_another_number_of_ranks_is_said(tmp_path):
    folder = str(tmp_path / "run")
    assert world(2, rank_runs.resumed_by, folder) == [([], 2), ([], 2)]
    [(said, size)] = world(1, rank_runs.resumed_by, folder)
    assert size == 1
    assert len(said) == 1
    assert "was trained by 2 processes and goes on with 1" in said[0]


def test_who_cannot_share_is_refused_in_one_line():
    check_shares("ppo-scratch", ppo_scratch, ppo_scratch.Config(), ALONE)
    with pytest.raises(UserError, match="ppo-scratch trains in one process, and torchrun started 2"):
        check_shares("ppo-scratch", ppo_scratch, ppo_scratch.Config(), Ranks(0, 2))
    check_shares("maml-trpo", maml_trpo, maml_trpo.Config(tasks=2), Ranks(1, 2))
    with pytest.raises(UserError, match="--tasks is 2, and torchrun started 3 processes"):
        check_shares("maml-trpo", maml_trpo, maml_trpo.Config(tasks=2), Ranks(1, 3))


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    """On a machine of two GPUs, as far as anything here can tell."""
    taken = []
    monkeypatch.setattr(parallel, "has_device", lambda name: str(name) in ("cpu", "cuda", "cuda:0", "cuda:1"))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert [choose_device(name, Ranks(3, 4, 1)) for name in ("cuda", "auto", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert taken == ["cuda:1", "cuda:1"]
    with pytest.raises(UserError, match="no device 'cuda:2' for its process 2"):
        choose_device("cuda", Ranks(2, 3, 2))
    with pytest.raises(UserError, match="--device is cuda:0, for 2 processes"):
        choose_device("cuda:0", Ranks(0, 2))
