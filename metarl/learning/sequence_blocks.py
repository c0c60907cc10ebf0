"""How a minibatch of sequences is shared out over processes, and cut into blocks.

A gradient is a sum over sequences: that of a minibatch may be added up from blocks of it. A block of a few thousand
steps stays in a processor's cache, and blocks keep several threads busy. One with few sequences costs more than it
saves, though: the kernels of most memories then wait for their operators. Measured here (one thread, thousand steps/s,
forwards and backwards, 128 wide, trials of 100 steps):

| sequences a block | 5 | 10 | 20 | 40 | 80 | 125 | 250 | 1000 |
|---|---|---|---|---|---|---|---|---|
| LSTM | 155 | 193 | 201 | 203 | 191 | 180 | 136 | 116 |
| GRU | 32 | 50 | 82 | 102 | 114 | 128 | 119 | 120 |
| transformer of 64 | 121 | 143 | 146 | 150 | 146 | 143 | 138 | 104 |
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from metarl.learning.sequences import Sequences
from metarl.nets.memory import Memory
from metarl.nets.recurrent import LSTM
from metarl.nets.transformer import Transformer
from metarl.nets.transitions import Transitions
from metarl.ranks import Ranks

BLOCK_STEPS = 2000  # of a block; so 10 trials of 200 steps, or 200 of 10
LEAST = {LSTM: 10, Transformer: 10}  # sequences a block where few are no slower
LEAST_OF_OTHERS = 80


def shared(batch: Sequences, rows: Tensor, ranks: Ranks) -> tuple[Sequences, Tensor]:
    """This rank's part of a minibatch, and the valid steps of all of it, at least 1.

    Where there are more ranks than sequences, the last of them work on one that counts for nothing.
    """
    part = rows.tensor_split(ranks.size)[ranks.rank]
    own = batch.take(part if len(part) else rows[:1])
    if not len(part):
        own = replace(own, valid=torch.zeros_like(own.valid))
    valid = own.valid if ranks.size == 1 else batch.valid.index_select(1, rows)
    return own, valid.sum().clamp(min=1)


def blocks(batch: Sequences, memory: Memory) -> list[Sequences]:
    """A minibatch in blocks, as many on any number of threads: one, or an even number, so that two have as much to do.

    An accelerator takes it whole.
    """
    steps, sequences = batch.valid.shape
    layer = memory.memory if isinstance(memory, Transitions) else memory
    least = LEAST.get(type(layer), LEAST_OF_OTHERS)
    count = min(-(-steps * sequences // BLOCK_STEPS), sequences // least)
    if batch.valid.device.type != "cpu" or count < 2:
        return [batch]
    return batch.tensor_split(count // 2 * 2)
