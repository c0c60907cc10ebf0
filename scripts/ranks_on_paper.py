"""What 64 ranks with 1,000 tasks would cost in traffic and gain in time, from what 2 ranks send and 1 process takes.

    OMP_NUM_THREADS=1 python scripts/ranks_on_paper.py --out results/benchmarks/ranks.md

Each agent trains a few iterations with its preset: in 2 processes, whose messages are counted, and in 1, with all tasks
and with half of them, whose times give seconds an iteration and seconds a task. The page says what is assumed.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import Any

from benchmark import machine, versions
from rank_training import Iteration, Trained

RANKS, TASKS = 64, 1000
LATENCY, BANDWIDTH = 50e-6, 10e9 / 8  # seconds a message, bytes a second
SKIPPED = 1  # iterations
ABOUT = f"""# {RANKS} ranks and {TASKS:,} tasks, on paper

`OMP_NUM_THREADS=1 python scripts/ranks_on_paper.py --out results/benchmarks/ranks.md`

Nobody has trained on {RANKS} ranks. This page says what the messages of 2 ranks and the times of 1 process come to, for
a process a core, one thread each, 10 Gb/s Ethernet (B = 1.25 GB/s for every rank; ranks of a machine that share a port
have a share of it) and a = 50 us a message. With R ranks and messages of M bytes:

- *all-reduce* round a ring (gradients of RL² and ProtoNet, moments of batch normalisation, flags):
  2 (R - 1) (a + M / (R B)) seconds; a rank sends 2 M (R - 1) / R bytes.
- *sum in order*, from rank to rank, then to all (MAML-TRPO, ProMP, MAML: the bits of one process):
  (R - 1 + ceil(log2 R)) (a + M / B) seconds; at most M (1 + ceil(log2 R)) bytes.
- *gather* of what each has, M bytes, with the sizes first (RL²'s experience, scores of tasks):
  2 (R - 1) a + (R - 1) M / B seconds; M (R - 1) bytes.
- *broadcast* from rank 0 (choices): ceil(log2 R) (a + M / B) seconds; at most M ceil(log2 R) bytes.

What is gathered grows with a rank's tasks; what is summed does not. Compute is s + c n seconds for n tasks of a rank.
What every rank does for all tasks (drawing them, RL²'s advantages) is in c, so it is divided by R here though it is
not; and stragglers (episodes that end at different times, other users of a machine) are not counted: the true gain is
smaller. An RL² minibatch has fewer trials than 64 ranks in the half-cheetah's preset with 40 trials, so c n holds only
where the trials of a minibatch grow with the tasks, as here. Were a gather too slow, each rank could be sent just the
sequences of its parts of the minibatches: epochs / R of it.
"""


@dataclass(frozen=True)
class Agent:
    """One that is measured: its options with all of its tasks and with half of them."""

    title: str
    name: str
    source: str
    field: str  # what counts the tasks
    tasks: int
    work: float | None
    options: dict[str, Any]

    def trained(self, ranks: int, tasks: int) -> Trained:
        """Its training."""
        return Trained(ranks, self.name, self.source, self.work, **{**self.options, self.field: tasks})


CHEETAH = "metarl/HalfCheetahVelocity-v0"
AGENTS = (
    Agent("MAML-TRPO, half-cheetah", "maml-trpo", CHEETAH, "tasks", 10, None, {"threads": 1}),
    Agent("ProMP, half-cheetah", "promp", CHEETAH, "tasks", 10, None, {"threads": 1}),
    Agent("RL², half-cheetah", "rl2", CHEETAH, "trials", 40, None, {"threads": 1}),
    Agent("MAML, glyphs", "maml", "glyphs", "tasks", 16, 1.0, {"strategy": "loop", "log_every": 1}),
    Agent("ProtoNet, glyphs", "protonet", "glyphs", "tasks", 4, 1.0, {"log_every": 1}),
)


def measured(agent: Agent, ranks: int, tasks: int, iterations: int) -> list[Iteration]:
    """Some iterations, without the first."""
    training = agent.trained(ranks, tasks)
    done = [training.iterate() for _ in range(SKIPPED + iterations)]
    training.end()
    return done[SKIPPED:]


def on_paper(kind: str, size: float, ranks: int) -> tuple[float, float]:
    """Seconds of a message among so many ranks, and bytes that a rank sends at most."""
    hops = ceil(log2(ranks))
    if kind == "all_reduce":
        return 2 * (ranks - 1) * (LATENCY + size / ranks / BANDWIDTH), 2 * size * (ranks - 1) / ranks
    if kind == "send":  # the chain of a sum in order; its broadcast is a message of its own
        return (ranks - 1) * (LATENCY + size / BANDWIDTH), size
    if kind == "all_gather_object":
        return 2 * (ranks - 1) * LATENCY + (ranks - 1) * size / BANDWIDTH, size * (ranks - 1)
    return hops * (LATENCY + size / BANDWIDTH), size * hops


def line(agent: Agent, iterations: int) -> str:
    """A row of the table."""
    messages = measured(agent, 2, agent.tasks, 1)[-1].messages
    whole, half = (
        statistics.median(each.seconds for each in measured(agent, 1, tasks, iterations))
        for tasks in (agent.tasks, agent.tasks // 2)
    )
    a_task = max(0.0, whole - half) / (agent.tasks - agent.tasks // 2)
    fixed = max(0.0, whole - a_task * agent.tasks)
    share = ceil(TASKS / RANKS)
    growth = share / (agent.tasks / 2)  # of what a rank of 2 gathers
    sized = [(kind, size * growth if kind == "all_gather_object" else float(size)) for kind, size in messages]
    seconds, sent = (sum(part) for part in zip(*(on_paper(*each, RANKS) for each in sized), strict=True))
    alone, shared = fixed + a_task * TASKS, fixed + a_task * share
    summed = sum(size for kind, size in messages if kind != "all_gather_object")
    gathered = sum(size for kind, size in messages if kind == "all_gather_object")
    cells = [
        agent.title,
        f"{agent.tasks}",
        f"{len(messages)}",
        f"{summed / 1e3:,.0f} kB",
        f"{gathered / 1e3 / (agent.tasks / 2):,.1f} kB",
        f"{fixed:.2f} + {a_task:.3f} n",
        f"{alone:,.1f}",
        f"{shared:.2f}",
        f"{seconds:.3f}",
        f"{sent / 1e6:,.1f} MB",
        f"{alone / (shared + seconds):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def page(iterations: int) -> str:
    """The whole of it."""
    heads = (
        "agent, its preset",
        "tasks measured",
        "messages an iteration",
        "summed or broadcast",
        "gathered a task",
        "seconds of n tasks",
        f"{TASKS:,} tasks on 1 rank, s",
        f"compute on {RANKS}, s",
        "traffic, s",
        "a rank sends",
        "gain",
    )
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for agent in AGENTS:
        rows.append(line(agent, iterations))
        print(rows[-1], flush=True)
    about = machine()
    named = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("python", "torch"))
    measured_on = f"{about['cores']} cores ({about['cpu']}), load {about['load']} at the end; {named}"
    return "\n".join([ABOUT, *rows, "", f"Medians of {iterations} iterations after the first; {measured_on}.", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page")
    parser.add_argument("--iterations", type=int, default=3, help="that each time is the median of (default 3)")
    asked = parser.parse_args()
    asked.out.write_text(page(asked.iterations), encoding="utf-8")
