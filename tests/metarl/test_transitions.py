import pytest
import torch

from metarl.nets.mingru import MinGRU
from metarl.nets.recurrent import GRU, LSTM
from metarl.nets.transitions import Transitions, paired
from metarl.seeding import Key


def some(*shape, seed=1):
    return torch.randn(*shape, generator=Key(seed).torch(), dtype=torch.float64)


def test_each_moment_stands_beside_the_one_before():
    x, last = torch.tensor([[[1.0]], [[2.0]], [[3.0]]]), torch.tensor([[[9.0]]])
    assert paired(x, last).squeeze(1).tolist() == [[1, 9], [2, 1], [3, 2]]
    assert torch.equal(paired(x.transpose(0, 1), last, 1), paired(x, last).transpose(0, 1))


@pytest.mark.parametrize("make", [GRU, LSTM, MinGRU])
def test_it_is_the_layer_on_pairs_of_moments_in_any_parts(make):
    memory = Transitions(make(6, 4))
    params = {n: v.double() for n, v in memory.init(Key(0).torch()).items()}
    assert not memory.start(2).any()
    x = some(5, 2, 3)
    pairs = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], -1)
    expected, after = memory.memory.sequence(params, pairs, memory.memory.start(2).double())
    for parts in ([5], [1, 4], [2, 1, 2]):
        state, outs = memory.start(2).double(), []
        for part in x.split(parts):
            out, state = memory.sequence(params, part, state)
            outs.append(out)
        torch.testing.assert_close(torch.cat(outs), expected)
        torch.testing.assert_close(state, torch.cat([after, x[-1]], 1))
