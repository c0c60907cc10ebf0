"""The verdict on a problem: which agent is best and by how much, in a sentence, and what that does not say.

The best agent is chosen by the very scores that are shown, so it counts as best only where it is ahead of the next
one beyond chance: by a p-value below .05, or, where there can be none, by an interval that leaves out 0; and then
only of these runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from metarl.evaluation.comparison import Comparison, Entry, compare, without_p
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.references import REFERENCES
from metarl.evaluation.statistics import Interval, least_p
from metarl.reporting.notes import SIGNIFICANT, cautions
from metarl.reporting.wording import SCORE, formatter, p_value, percent, setting, with_ends

MARKS = {agent for agents in REFERENCES.values() for agent in agents}  # of the scale: they do not compete


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to.

    Attributes:
        sentence: the best agent, its score, its lead over the next, and what was measured.
        limits: what cannot be concluded, a sentence each.
    """

    sentence: str
    limits: tuple[str, ...]


def verdict(comparison: Comparison) -> Verdict:
    """The verdict on one problem."""
    competing = [entry for entry in comparison.entries if entry.curve.agent not in MARKS]
    entries = sorted(competing or comparison.entries, key=_rank)
    best = entries[0]
    where = f"on {setting(best.curve)}"
    measured = f"measured on {_tasks(best.curve)}{_seeds([entry.curve for entry in entries])}"
    reached = f"{_score(best.curve)}{_consumed(best.curve)}"
    limits: list[str] = []
    if len(entries) == 1:
        sentence = f"{best.label} reaches {reached} {where}{_gain(best.curve)}; {measured}."
        limits.append("There is no other agent to compare it with.")
    else:
        second = entries[1]
        alone = without_p(second.curve, best.curve) is not None  # else the number of comparisons corrects p
        ahead = compare([entry.curve for entry in entries[: 2 if alone else None]], against=0).entries[1]
        lead, by = _lead(ahead), f"{second.label} is next"
        if math.isfinite(float(ahead.difference.value)):
            p = f", p {'' if ahead.p < 0.001 else '= '}{p_value(ahead.p)}" if math.isfinite(ahead.p) else ""
            by = f"ahead of {second.label}, the next, by {_points(best.curve, lead)}{p}"
        beyond_chance = ahead.p < SIGNIFICANT if math.isfinite(ahead.p) else float(lead.low) > 0
        if not beyond_chance:
            sentence = f"No agent is shown to be best {where}: {best.label} ends first, {reached}, {by}; {measured}."
        elif math.isfinite(ahead.p):
            sentence = f"{best.label} is best {where}: {reached}, {by}; {measured}."
        else:
            sentence = f"In these runs {best.label} did best {where}: {reached}, {by}; {measured}."
        if ahead.without_p is not None:
            limits.append(f"There is no p-value: {ahead.without_p}.")
        elif (least := least_p(best.curve.tasks)) > SIGNIFICANT:
            limits.append(f"With {best.curve.tasks} tasks no p can be below {least:.3g}.")
    if not best.curve.unseen:
        limits.append("How it does on tasks it was not trained on: these are reused.")
    if best.curve.diverged[-1]:
        limits.append(f"{percent(best.curve.diverged[-1])} of its scores diverged; its mean leaves them out.")
    limits += cautions([entry.curve for entry in entries])
    return Verdict(sentence, tuple(dict.fromkeys(limits)))


def _rank(entry: Entry) -> tuple[float, float]:
    """The best first: whose scores diverged least, and then whose last score is best."""
    last = float(entry.curve.mean[-1])
    better = last if entry.curve.higher_is_better else -last
    return float(entry.curve.diverged[-1]), -better if math.isfinite(better) else math.inf


def _lead(ahead: Entry) -> Interval:
    """By how much the first is better than the next, of how much the next is better than the first."""
    behind = ahead.difference
    return Interval(-behind.value, -behind.high, -behind.low)


def _score(curve: AdaptationCurve) -> str:
    last = Interval(curve.interval.value[-1], curve.interval.low[-1], curve.interval.high[-1])
    return f"{SCORE[curve.score]} {_points(curve, last, '%')}"


def _points(curve: AdaptationCurve, interval: Interval, unit: str = "points") -> str:
    return with_ends(formatter(curve), interval) + f" {unit}" * (curve.score == "accuracy")


def _consumed(curve: AdaptationCurve) -> str:
    """What the last score took; nothing of a single score that says neither."""
    if curve.regret is not None:
        return f" in {len(curve.regret):,} pulls"
    if not curve.adapts:
        return " without adapting" * (curve.steps > 0)
    last = curve.along(curve.axis)[-1]
    unit = UNITS[curve.axis]
    return f" after {last:,} {unit.removesuffix('s') if last == 1 and unit.endswith('s') else unit}"


def _gain(curve: AdaptationCurve) -> str:
    if not curve.adapts:
        return ""
    gain = Interval(curve.gain.value[-1], curve.gain.low[-1], curve.gain.high[-1])
    return f", {_points(curve, gain)} better than before it adapts"


def _tasks(curve: AdaptationCurve) -> str:
    unseen = "unseen " if curve.unseen and curve.split != "train" else ""
    return f"{curve.tasks:,} {unseen}{curve.split} task{'s' * (curve.tasks != 1)}"


def _seeds(curves: list[AdaptationCurve]) -> str:
    trained = [curve for curve in curves if curve.trained]
    if not trained:
        return ""
    counts = sorted({len(curve.seeds) for curve in trained})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    of = "" if len(curves) == 1 else " each" if len(trained) == len(curves) else " of each trained agent"
    of = f" of {trained[0].agent}" if len(trained) == 1 < len(curves) else of
    return f", {number} training seed{'s' * (number != '1')}{of}"
