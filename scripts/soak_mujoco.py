"""Ten million steps of random actions with faults injected: nothing non-finite may leave the engine.

    python scripts/soak_mujoco.py --json results/soak/mujoco.json 2> /dev/null

(MuJoCo writes a warning to stderr for each fault.)
Five robots in turn. Every tenth row is spoilt at random moments: NaN or infinite coordinates or velocities, a
velocity of 1e8; in the walker's and the hopper's spoilt rows masses are 0 to 1e15 times the robot's
throughout. The first quarter of the rows also runs in a second batch, on one thread, that nobody disturbs.
Checked at every step: observations, rewards and their terms are finite; undisturbed rows equal the second
batch's bit for bit, and none is called unstable; a fault ends its episode, flagged. Memory must not have
grown. Exit 1 if anything fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import machine, versions
from numpy.typing import NDArray

from metarl.envs import family_class
from metarl.envs.mujoco.engine import BatchedMujoco, MujocoFamily
from metarl.seeding import Key
from metarl.tasks import Tasks

FAMILIES = {  # share of the steps
    "metarl/HalfCheetahVelocity-v0": 0.82,
    "metarl/HopperRandomParams-v0": 0.08,
    "metarl/WalkerRandomParams-v0": 0.05,
    "metarl/AntVelocity-v0": 0.04,
    "metarl/HumanoidDirection2D-v0": 0.01,
}
ROWS = 400
SPOILT = np.arange(ROWS) % 10 == 5  # each has undisturbed neighbours on both sides
TWINS = 100  # rows that also run undisturbed
FAULT_RATE = 0.02  # faults a spoilt row and step
MASSES = (0.0, 1e-12, 1e-3, 1e6, 1e15)  # factors
FAULTS = ("qpos nan", "qpos inf", "qvel nan", "qvel inf", "qvel 1e8")
GROWTH = 16.0  # MiB that memory may grow after the first tenth


@dataclass
class Report:
    """What a family's soak saw."""

    family: str
    steps: int = 0
    compared: int = 0  # steps of undisturbed rows that equalled their twin's
    faults: int = 0
    unstable: int = 0
    grown: float = 0.0  # MiB of resident memory since a tenth of the steps
    seconds: float = 0.0


def main() -> None:
    """Soak every family and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=10_000_000, help="environment steps with faults, all robots together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write what was seen")
    args = parser.parse_args()
    target = args.json.resolve() if args.json else None
    reports = []
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # MuJoCo writes its warnings to a file in the working directory
        for name, share in FAMILIES.items():
            try:
                reports.append(soak(name, int(share * args.steps), Key(args.seed)(name), args.threads))
            except AssertionError as error:
                print(f"{name}: {error}")
                sys.exit(1)
            print(reports[-1], flush=True)
        os.chdir("/")
    steps, faults = sum(report.steps for report in reports), sum(report.faults for report in reports)
    print(f"{steps:,} steps, {faults:,} faults: sound")
    if target:
        report = {"machine": machine(), "versions": versions(), "seed": args.seed, "steps": steps, "faults": faults}
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({**report, "families": [asdict(each) for each in reports]}, indent=2) + "\n")


def soak(name: str, steps: int, key: Key, threads: int) -> Report:
    """Run one family; AssertionError says what failed."""
    robot = family_class(name)
    family = type(robot.__name__, (robot,), {"bounds": {}})()  # whatever the masses
    assert isinstance(family, MujocoFamily)
    tasks = family.fixed("train", ROWS)
    env = family.make_vec(_extreme(tasks), 1, threads=threads)
    calm = family.make_vec(tasks[:TWINS], 1, threads=1)
    rng, report, began, settled = key.numpy(), Report(name), time.perf_counter(), 0.0
    env.reset(seed=1)
    calm.reset(seed=1)
    moments = max(1, steps // ROWS)
    for moment in range(moments):
        actions = rng.uniform(-1.5, 1.5, (ROWS, family.robot.sizes[2]))
        expected = calm.step(actions[:TWINS])
        fatal = _spoil(env, rng, report)
        _check(env.step(actions), expected, fatal, report)
        ended, calm_ended = env._ended.copy(), calm._ended.copy()
        if ended.any() or calm_ended.any():  # both, so that their streams stay in step
            env.reset(options={"reset_mask": ended})
            calm.reset(options={"reset_mask": calm_ended})
        if moment == moments // 10:
            settled = _resident()
    report.steps, report.seconds = moments * ROWS, round(time.perf_counter() - began, 1)
    report.grown = round(_resident() - settled, 1)
    assert report.grown < GROWTH, f"memory grew by {report.grown} MiB"
    return report


def _extreme(tasks: Tasks) -> Tasks:
    """The tasks, with extreme masses in the spoilt rows where masses are part of a task."""
    arrays = {name: values.copy() for name, values in tasks.arrays.items()}
    if "mass" in arrays:
        arrays["mass"][SPOILT] = np.resize(MASSES, SPOILT.sum())[:, None]
    return Tasks(arrays, split=tasks.split)


def _spoil(env: BatchedMujoco, rng: np.random.Generator, report: Report) -> NDArray[np.int64]:
    """Inject faults; return the rows whose episodes must end."""
    rows = np.flatnonzero(SPOILT & (rng.random(ROWS) < FAULT_RATE))
    for row in rows:
        where, value = FAULTS[rng.integers(len(FAULTS))].split()
        target = getattr(env, where)
        target[row, rng.integers(target.shape[1])] = float(value)
    report.faults += len(rows)
    return rows


def _check(result: tuple[Any, ...], expected: tuple[Any, ...], fatal: NDArray[np.int64], report: Report) -> None:
    obs, rewards, terminated, truncated, infos = result
    assert np.isfinite(obs).all(), "a non-finite observation"
    assert np.isfinite(obs.astype(np.float32)).all(), "an observation too large for float32"
    assert np.isfinite(rewards).all(), "a non-finite reward"
    assert all(np.isfinite(values).all() for values in infos.values()), "a non-finite term of the reward"
    assert infos["unstable"][fatal].all(), "a fault went unnoticed"
    assert (terminated | ~infos["unstable"]).all(), "an unstable row did not end"
    assert not infos["unstable"][~SPOILT].any(), "an undisturbed row was called unstable"
    assert not truncated[fatal].any(), "an unstable row was truncated"
    same = ~SPOILT[:TWINS]
    for mine, theirs in zip(result[:4], expected[:4], strict=True):
        assert (mine[:TWINS][same] == theirs[same]).all(), "an undisturbed row differs"
    report.compared += int(same.sum())
    report.unstable += int(infos["unstable"].sum())


def _resident() -> float:
    """Resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
