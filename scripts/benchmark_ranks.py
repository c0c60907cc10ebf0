"""What a second process brings: iterations of whole trainings under torchrun, 2 ranks / 1 rank, one thread each.

    OMP_NUM_THREADS=1 python scripts/benchmark_ranks.py --json results/benchmarks/ranks.json

Both sides train with the preset of the family, log and count as any training does; they take turns, an iteration or
more at a time, while the other waits. The rates are environment steps or tasks a second. On 2 cores: the 2 ranks have
a core each, and the 1 rank leaves one idle.

To add a row: write a function that returns a `Comparison` and put it into `ROWS`.
"""

from __future__ import annotations

from typing import Any

from benchmark import Comparison, main
from rank_training import Trained


def compared(
    agent: str, source: str, what: str, target: float, work: float | None = None, **options: Any
) -> Comparison:
    """Both sides; `work` is the tasks of an iteration where its environment steps are not counted."""
    two, one = (Trained(ranks, agent, source, work, **options) for ranks in (2, 1))

    def finish() -> None:
        two.end()
        one.end()

    unit = "environment steps/s" if work is None else "tasks/s"
    name = f"{what}: 2 ranks / 1 rank, one thread each, {unit}"
    return Comparison(name, lambda: two.iterate().work, lambda: one.iterate().work, target, finish)


def maml_trpo_half_cheetah() -> Comparison:
    """MAML-TRPO, 40 tasks x 20 episodes x 200 steps, twice."""
    what = "MAML-TRPO on half-cheetah velocities, its preset (40 tasks, 20 episodes of 200 steps)"
    return compared("maml-trpo", "metarl/HalfCheetahVelocity-v0", what, 1.7, threads=1)


def rl2_half_cheetah() -> Comparison:
    """RL², 40 trials of 400 steps, 8 minibatches of 10 trials."""
    what = "RL² on half-cheetah velocities, its preset (GRU of 128, 40 trials of 400 steps, 2 x 4 minibatches)"
    return compared("rl2", "metarl/HalfCheetahVelocity-v0", what, 1.6, threads=1)


def rl2_half_cheetah_160() -> Comparison:
    """RL² with 4 times the trials: what more processes are for. The time loop of 400 steps costs the same for any."""
    what = "RL² on half-cheetah velocities, 4 times its preset's trials (160, 2 x 4 minibatches)"
    return compared("rl2", "metarl/HalfCheetahVelocity-v0", what, 1.6, threads=1, trials=160)


def rl2_bandit() -> Comparison:
    """RL², 2,500 trials of 10 steps, 40 minibatches of 250 trials."""
    what = "RL² on Bernoulli bandits, its preset (GRU of 128, 2,500 trials of 10 steps, 4 x 10 minibatches)"
    return compared("rl2", "metarl/BernoulliBandit-v0", what, 1.6, threads=1)


def rl2_mdp() -> Comparison:
    """RL², trials of 100 steps, an eighth of the preset's 2,400."""
    what = "RL² on tabular MDPs, an eighth of its preset (GRU of 256, 300 trials of 100 steps, 8 x 3 minibatches)"
    return compared("rl2", "metarl/TabularMDP-v0", what, 1.6, threads=1, trials=300, minibatches=3)


def maml_glyphs() -> Comparison:
    """MAML on images, task by task."""
    what = "MAML on glyphs, its preset (16 tasks of 5 ways), strategy loop"
    return compared("maml", "glyphs", what, 1.6, work=16.0, strategy="loop", log_every=1)


def protonet_glyphs() -> Comparison:
    """ProtoNet, batch normalisation over the images of all tasks."""
    what = "ProtoNet on glyphs, its preset (20 ways) with 4 tasks"
    return compared("protonet", "glyphs", what, 1.6, work=4.0, tasks=4, log_every=1)


ROWS = [
    maml_trpo_half_cheetah,
    rl2_half_cheetah,
    rl2_half_cheetah_160,
    rl2_bandit,
    rl2_mdp,
    maml_glyphs,
    protonet_glyphs,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
