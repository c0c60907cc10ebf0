"""How fast memories and actors learn, forward and backward, each beside torch's LSTM or the plain head.

    OMP_NUM_THREADS=1 python scripts/benchmark_recurrent.py --json results/benchmarks/recurrent.json

A memory sees 250 sequences of 100 moments of 32 numbers and is 128 wide, as for RL²; a rate counts moments.
The last row is a whole actor-critic for the half-cheetah, on a minibatch of 25 sequences: what a hypernetwork as actor
leaves of its speed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmark import Comparison, Work, main

from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.hypernetwork import Hypernetwork
from metarl.nets.memory import Memory
from metarl.nets.mingru import MinGRU
from metarl.nets.mlp import MLP
from metarl.nets.recurrent import GRU, LSTM
from metarl.nets.transitions import Transitions
from metarl.seeding import Key

LENGTH, ROWS, INPUTS, HIDDEN = 100, 250, 32, 128
TRIALS = 25  # of a minibatch of the half-cheetah's
SEEN, ACTIONS = 17, 6  # numbers of a half-cheetah's observation and action


def learning(memory: Memory) -> Work:
    """Forward and backward over a minibatch; returns its moments."""
    params = {name: value.requires_grad_() for name, value in memory.init(Key(0).torch()).items()}
    x = torch.randn(LENGTH, ROWS, INPUTS, generator=Key(1).torch())

    def work() -> float:
        out, _ = memory.sequence(params, x, memory.start(ROWS))
        torch.autograd.grad(out.square().mean(), list(params.values()))
        return float(LENGTH * ROWS)

    return work


def acting(memory: Memory) -> Work:
    """A moment of 250 trials, without gradients."""
    params, x = memory.init(Key(0).torch()), torch.randn(ROWS, INPUTS, generator=Key(1).torch())
    state = memory.start(ROWS)

    def work() -> float:
        with torch.no_grad():
            memory.step(params, x, state)
        return float(ROWS)

    return work


def actor_critic(hypernetwork: Hypernetwork | None) -> Work:
    """Forward and backward of an actor-critic over a minibatch."""
    policy = RecurrentPolicy(INPUTS, ACTIONS, False, LSTM(INPUTS, HIDDEN), hypernetwork=hypernetwork)
    params = {name: value.requires_grad_() for name, value in policy.init(Key(0).torch()).items()}
    x = torch.randn(LENGTH, TRIALS, INPUTS, generator=Key(1).torch())

    def work() -> float:
        decision = policy.sequence(params, x, policy.start(TRIALS))
        loss = decision.value.square().mean() + decision.distribution.mean.square().mean()
        torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        return float(LENGTH * TRIALS)

    return work


def beside_lstm(name: str, memory: Memory, target: float, kind: Callable[[Memory], Work] = learning) -> Comparison:
    """A memory beside the LSTM."""
    what = "forward and backward" if kind is learning else "acting"
    return Comparison(f"{name} / LSTM, {what}, moments/s", kind(memory), kind(LSTM(INPUTS, HIDDEN)), target)


def gru() -> Comparison:
    """Torch's GRU."""
    return beside_lstm("GRU", GRU(INPUTS, HIDDEN), 1.0)


def mingru() -> Comparison:
    """One layer of minimal GRUs."""
    return beside_lstm("minGRU", MinGRU(INPUTS, HIDDEN), 2.0)


def mingru_two_layers() -> Comparison:
    """Two layers of them."""
    return beside_lstm("minGRU, 2 layers", MinGRU(INPUTS, HIDDEN, 2), 1.0)


def mingru_acting() -> Comparison:
    """One layer, a moment at a time."""
    return beside_lstm("minGRU", MinGRU(INPUTS, HIDDEN), 1.0, acting)


def transitions() -> Comparison:
    """An LSTM of whole transitions beside one of moments."""
    return beside_lstm("LSTM of transitions", Transitions(LSTM(2 * INPUTS, HIDDEN)), 0.8)


def hypernetwork() -> Comparison:
    """An LSTM whose actor's weights a hypernetwork makes, beside one with a head."""
    made = Hypernetwork(HIDDEN, MLP((SEEN, 32, 32, ACTIONS)))
    name = "hypernetwork / head, LSTM 128 with actor and critic, forward and backward, moments/s"
    return Comparison(name, actor_critic(made), actor_critic(None), 0.5)


ROWS_OF_THE_TABLE = (gru, mingru, mingru_two_layers, mingru_acting, transitions, hypernetwork)

if __name__ == "__main__":
    main(ROWS_OF_THE_TABLE, __doc__)
