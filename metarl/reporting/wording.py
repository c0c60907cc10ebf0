"""How problems and scores are put into words and numbers, in tables and on figures alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metarl import registry
from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.statistics import Interval
from metarl.evaluation.storage import finite_or_none
from metarl.plugins import plugins

HEADINGS = {"return": "return", "accuracy": "accuracy, %", "mse": "mean squared error"}
NONE = "–"  # nothing to say here
NO_ENDS = "none"  # of an interval that nothing could be resampled for
DIVERGED = "diverged"  # in place of a number that is none
LEFT_OUT = "*"  # marks a mean of the finite scores alone
SCORE = {"return": "return", "accuracy": "accuracy", "mse": "mean squared error"}  # of an axis


def problem(curves: Sequence[AdaptationCurve], *, interval: bool = True) -> str:
    """The problem, and how many tasks and seeds were measured (and that intervals are shown), on two lines."""
    first = curves[0]
    counts = {len(curve.seeds) for curve in curves if curve.trained}
    seeds = str(min(counts, default=1)) if len(counts) < 2 else f"{min(counts)} to {max(counts)}"
    trained = f", {seeds} seed{'s' * (seeds != '1')}" if counts else ""
    tasks = f"{first.tasks:,} {first.split} task{'s' * (first.tasks != 1)}"
    if (rows := first.per_task.shape[1]) > first.tasks:
        tasks += f" in {rows:,} rows"
    reused = "" if first.unseen else " (tasks reused, not unseen)"
    over = " over tasks" if max(counts, default=1) == 1 else ""
    shown = f"mean and 95 % interval{over}" if interval else "mean"
    return f"{setting(first)}\n{tasks}{reused}{trained}, {shown}"


def setting(curve: AdaptationCurve) -> str:
    """The family or data set, with what of its preset and options is no default: `omniglot, 5-way 1-shot`."""
    preset = {} if curve.preset is None else {"preset": curve.preset}
    return setting_of(curve.family, preset | dict(curve.options))


def setting_of(source: str, options: Mapping[str, Any]) -> str:
    """A family or data set by its name, with what of its options, its preset among them, is no default."""
    words = [source.removeprefix("metarl/")]
    usual = finite_or_none(_defaults(source))
    unusual = {name: value for name, value in options.items() if name not in usual or usual[name] != value}
    words += [str(unusual.pop("preset"))] if "preset" in unusual else []
    if {"ways", "shots"} <= options.keys():
        words.append(f"{options['ways']}-way {options['shots']}-shot")
        unusual = {name: value for name, value in unusual.items() if name not in ("ways", "shots")}
    return ", ".join([*words, *(f"{name}={value}" for name, value in unusual.items())])


def _defaults(source: str) -> Mapping[str, Any]:
    """The default options of a family or data set that is installed; none of another."""
    own = {*registry.families(), *registry.datasets()}
    if source not in own | plugins("families").keys() | plugins("datasets").keys():
        return {}  # the name of a module in a file is no reason to run it
    try:
        fields = dataclasses.fields(registry.source_class(source))
    except (UserError, TypeError):  # of a package that is broken: then all options are shown
        return {}
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def formatter(curve: AdaptationCurve) -> Callable[[float], str]:
    """How scores of this kind are written: accuracies in per cent; a number that is none as "diverged"."""
    factor, digits = {"return": (1, 2), "accuracy": (100, 2), "mse": (1, 4)}[curve.score]

    def number(value: float) -> str:
        if not math.isfinite(value):
            return DIVERGED
        text = f"{factor * value:.{digits}f}"
        return text.removeprefix("-") if float(text) == 0 else text

    return number


def ratio(value: float) -> str:
    """A normalised score, to three digits."""
    return f"{value:.3f}".removeprefix("-") if abs(value) < 0.0005 else f"{value:.3f}"


def mean_with(number: Callable[[float], str], share: float) -> Callable[[float], str]:
    """How a mean is written that leaves out a share of the scores."""
    mark = LEFT_OUT if share else ""
    return lambda value: number(value) + mark if math.isfinite(value) else DIVERGED


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.3g} %"


def ends(number: Callable[[float], str], interval: Interval, k: Any = ()) -> str:
    """The ends of an interval, `NO_ENDS` where it has none."""
    low, high = float(interval.low[k]), float(interval.high[k])
    return NO_ENDS if math.isnan(low) else f"[{number(low)}, {number(high)}]"


def with_ends(number: Callable[[float], str], interval: Interval) -> str:
    """A number with the ends of its interval."""
    if math.isnan(float(interval.value)):
        return DIVERGED
    return f"{number(float(interval.value))} {ends(number, interval)}"


def p_value(value: float) -> str:
    """A p-value to three digits, `NONE` where there is none."""
    if value != value:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_share(label: str, curve: AdaptationCurve) -> str:
    """A label that says which share of the scores a mean leaves out, at the worst of its points."""
    worst = float(curve.diverged.max())
    return f"{label} (without {100 * worst:.3g} % diverged)" if worst else label
