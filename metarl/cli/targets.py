"""What the words name: a run folder, curves, a family or data set."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from metarl import registry
from metarl.cli.options import Group, Words, fail
from metarl.cli.terminal import say
from metarl.errors import UserError, unknown
from metarl.learning.brought import Kind, check_brought
from metarl.plugins import plugins
from metarl.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.learning.contract import Source


CURVE = "curve.json"  # of a run folder, on its test tasks


def source_group(kind: Kind | None, agent: str, words: Words) -> Group:
    """The family or data set that the words name for an agent, as a group of options."""
    family, dataset = words.peek("--family"), words.peek("--dataset")
    if kind is None:
        if (family is None) == (dataset is None):
            fail(f"{agent} needs either --family or --dataset")
        kind = "family" if dataset is None else "dataset"
    if kind == "dataset":
        name, other, table = dataset, family, [*registry.datasets(), *plugins("datasets")]
        missing = f"{agent} learns from a data set: give --dataset"
    else:
        name, other, table = family, dataset, [*registry.families(), *plugins("families")]
        missing = f"{agent} acts in a task family: give --family"
    if name is None or other is not None:
        fail(f"{missing}, one of {', '.join(table)}, or your own as module:Name")
    group = Group(kind, registry.source_class(name, kind))
    presets = getattr(group.kind, "presets", None)
    preset = words.peek("--preset") or words.peek(f"--{kind}.preset")
    if presets and preset is not None and preset not in presets:
        raise unknown(f"preset of {name}", preset, presets)
    return group


def usable(source: Source, name: str) -> Source:
    """The family or data set, which is looked at first where somebody else has written it."""
    if type(source).__module__.partition(".")[0] != "metarl":
        check_brought(source, name)
    return source


def existing_run(target: str, instead: Iterable[str] = ()) -> Path:
    """The run folder; `instead` are agents that the command takes in its place."""
    folder = Path(target)
    if folder.exists():
        return folder
    if target in registry.agents() or target in plugins("agents"):
        fail(f"{target} must be trained first (metarl train {target} ...); then give the run folder")
    names = list(instead)
    nearest = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    others = f", or one of {', '.join(names)} with --family or --dataset" if names else ""
    raise UserError(f"there is no run {target!r}{hint}; give a run folder{others}")


def source_flag(kind: Kind | None) -> str:
    """How an agent is told where its tasks come from."""
    return {"family": "--family ID", "dataset": "--dataset NAME", None: "--family ID (or --dataset NAME)"}[kind]


def chosen_device(name: str, ranks: Ranks = ALONE) -> str:
    """The device that --device names, for one of these processes; which one `auto` has taken is said.

    Raises:
        UserError: this machine has no such device.
    """
    from metarl.parallel import choose_device  # loads torch

    device = choose_device(name, ranks)
    if name == "auto":
        say(f"--device auto: {device}")
    return device


def saved_curve(path: Path) -> AdaptationCurve:
    """The only curve of a run folder or of a JSON file."""
    curves = saved_curves(path)
    if len(curves) != 1:
        fail(f"{path} holds {len(curves)} curves, not one")
    return curves[0]


def saved_curves(path: Path, split: str = "test") -> list[AdaptationCurve]:
    """The curves of a run folder on a split, of a curve's JSON, or of a comparison's."""
    from metarl.evaluation.curve import load_curves

    if not path.exists():
        fail(f"there is no run or curve {str(path)!r}")
    if path.is_dir():
        name = CURVE if split == "test" else CURVE.replace(".", f"-{split}.")
        if not (path / name).exists():
            asked = "" if split == "test" else f" --split {split}"
            fail(f"{path} has no {name} yet: metarl evaluate {shlex.quote(str(path))}{asked}")
        path = path / name
    return load_curves(path)


def evaluated_splits(folder: Path) -> list[str]:
    """The splits of which a run folder holds a curve."""
    files = {"test": CURVE} | {split: CURVE.replace(".", f"-{split}.") for split in ("validation", "ood", "train")}
    return [split for split, name in files.items() if (folder / name).exists()]
