"""The batch is one pytree: vmap maps over its tasks, indexing and moving keep its fields together."""

import torch
from torch.utils._pytree import tree_flatten, tree_map

from metarl.fewshot.batch import Batch


def make() -> Batch:
    return Batch(torch.arange(6.0).view(3, 2), torch.ones(3, 2), torch.full((3, 2), 2.0), torch.zeros(3, 2))


def test_vmap_maps_over_tasks():
    batch = make()
    found = torch.func.vmap(lambda task: (task.support_x * task.query_x).sum() + task.support_y.sum())(batch)
    assert found.tolist() == [4.0, 12.0, 20.0]


def test_pytree_round_trip():
    leaves, _ = tree_flatten(make())
    assert len(leaves) == 4
    doubled = tree_map(lambda x: 2 * x, make())
    assert isinstance(doubled, Batch)
    assert torch.equal(doubled.query_x, torch.full((3, 2), 4.0))


def test_index_and_device():
    batch = make()
    assert len(batch) == 3
    assert batch[1].support_x.tolist() == [2.0, 3.0]
    assert len(batch[1:]) == 2
    assert batch.to("meta").query_y.device.type == "meta"
