"""Lake's benchmark: the official runs, and the harness check that the official script states."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from metarl.errors import UserError
from metarl.fewshot.datasets import lake
from metarl.seeding import Key

DATA = Path(os.environ.get("METARL_DATA", ""))
needs_runs = pytest.mark.skipif(
    not (DATA / "omniglot/all_runs.zip").is_file(), reason="METARL_DATA has no all_runs.zip"
)


@needs_runs
def test_hausdorff_distance_reproduces_the_official_error():
    errors = lake.load().hausdorff_errors()
    assert errors.shape == (20,)
    assert round(errors.mean(), 2) == 38.75  # the official script says 38.8


@needs_runs
def test_runs_are_twenty_tasks_of_twenty_ways():
    runs = lake.load()
    assert (np.sort(runs.answers, 1) == np.arange(20)).all()
    assert runs.answers[0, :3].tolist() == [7, 8, 1]  # the first lines of run01/class_labels.txt
    batch = runs.batch()
    assert batch.support_x.shape == batch.query_x.shape == (20, 20, 1, 28, 28)
    assert 0.05 < float(batch.support_x.mean()) < 0.12
    assert runs.errors(lambda b: b.query_y).tolist() == [0.0] * 20
    assert runs.errors(lambda b: (b.query_y + (torch.arange(20) < 5)) % 20).tolist() == [25.0] * 20
    with pytest.raises(ValueError, match="predictions have shape"):
        runs.errors(lambda b: b.query_y[0])


def test_modified_hausdorff_literals():
    a, b = KDTree([[0.0, 0.0], [0.0, 2.0]]), KDTree([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    # a to b: 0 and 1; b to a: 0, 3 and 1
    assert lake.modified_hausdorff(a, b) == lake.modified_hausdorff(b, a) == 4 / 3
    assert lake.modified_hausdorff(a, a) == 0


def test_modified_hausdorff_is_the_definition():
    rng = Key(0)("points").numpy()
    a, b = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
    distance = cdist(a, b)
    expected = max(distance.min(1).mean(), distance.min(0).mean())
    np.testing.assert_allclose(lake.modified_hausdorff(KDTree(a), KDTree(b)), expected, rtol=1e-12)


def test_ink_is_centred():
    picture = np.zeros((105, 105), bool)
    picture[10, 20] = picture[12, 24] = True
    assert lake.ink(picture).data.tolist() == [[-1.0, -2.0], [1.0, 2.0]]


def test_missing_and_damaged_runs_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_OFFLINE", "1")
    with pytest.raises(UserError, match=r"all_runs\.zip is missing .*; expected: omniglot/all_runs\.zip"):
        lake.load(tmp_path)
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot/all_runs.zip").write_bytes(b"PK not really")
    with pytest.raises(UserError, match=r"all_runs\.zip.* cannot be read"):
        lake.load(tmp_path)
