"""What is said below a table: what its numbers are, and what keeps them from saying what they seem to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from metarl.evaluation.axes import PULLS
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.statistics import FEW_SEEDS, least_p
from metarl.reporting.wording import LEFT_OUT, formatter

TENTHS = 10  # tasks from which on the worst tenth of them says something
SIGNIFICANT = 0.05  # what a reader looks for in a p-value


def left_out(curves: Sequence[AdaptationCurve]) -> list[str]:
    """What `LEFT_OUT` means, where it occurs."""
    if not any(curve.diverged.any() for curve in curves):
        return []
    return [
        f"{LEFT_OUT} without the scores that diverged (are not finite), whose share is beside it; by rank "
        "(IQM, profile, P(better)) they are the worst."
    ]


def cautions(curves: Sequence[AdaptationCurve]) -> list[str]:
    """What keeps the numbers from saying what they seem to."""
    notes = left_out(curves)
    counts = {curve.agent: len(curve.seeds) for curve in curves if curve.trained and len(curve.seeds) < FEW_SEEDS}
    if one := [agent for agent, seeds in counts.items() if seeds == 1]:
        notes.append(f"One training seed of {', '.join(one)}: its intervals say nothing of another training.")
    if few := [f"{agent} {seeds}" for agent, seeds in counts.items() if seeds > 1]:
        notes.append(
            f"Fewer than {FEW_SEEDS} training seeds ({', '.join(few)}): intervals are too narrow. With 3 they hold the "
            "truth in 80 %, not 95 %, where the luck of a seed is as large as the differences between tasks."
        )
    if any(curve.repeats_unknown for curve in curves):
        notes.append("Measured before repeats of one task were told apart: rows count as tasks. Evaluate again.")
    return notes


def references(curves: Sequence[AdaptationCurve]) -> list[str]:
    """The scores of random behaviour and of the oracle, where known."""
    known: Mapping[str, float | None] = {"random": curves[0].random, "oracle": curves[0].oracle}
    number = formatter(curves[0])
    shown = [f"{name} {number(value)}" for name, value in known.items() if value is not None]
    return ["; ".join(shown)] if shown else []


def regret_note(curve: AdaptationCurve) -> list[str]:
    """What a bandit's first and last pull and all together cost."""
    if curve.regret is None:
        return []
    first, last, total = curve.regret[0], curve.regret[-1], sum(curve.regret)
    return [f"regret a pull: {first:.3f} at the first, {last:.3f} at the last, {total:.2f} in all"]


def explanations(comparison: Comparison) -> list[str]:
    """Everything below the summary of a comparison."""
    first = comparison.curves[0]
    notes = [
        "Last scores; intervals are of a bootstrap over seeds and tasks. IQM: interquartile mean.",
    ]
    if first.tasks >= TENTHS:
        notes[0] += " Worst tenth: mean of the worst tenth of the scores (CVaR 10 %)."
    if comparison.axis == PULLS:
        notes.append("Regret: what all pulls of a trial cost, mean of the best arm minus mean of the arm pulled.")
    if comparison.axis in UNITS:
        notes[0] += f" Area: mean score over the {UNITS[comparison.axis]}, the last score held to the end."
    if len(comparison.entries) > 1:
        tested = sum(math.isfinite(entry.p) for entry in comparison.entries)
        p = ""
        if tested:
            p = "p: of no difference, for new training seeds and new tasks (t over both, and sign flips of tasks)"
            p += f", corrected for {tested} comparisons (Holm). " if tested > 1 else ". "
            if (least := least_p(first.tasks)) > SIGNIFICANT:
                p += f"With {first.tasks} tasks no p can be below {least:.3g}. "
        notes.append(
            f"Differences are paired by task. {p}"
            f"P(better): how often a run {'scores higher' if first.higher_is_better else 'errs less'} on a task."
        )
        reasons = dict.fromkeys(entry.without_p for entry in comparison.entries if entry.without_p is not None)
        notes += [f"No p: {reason}." for reason in reasons]
    return notes + cautions(comparison.curves) + references(comparison.curves)
