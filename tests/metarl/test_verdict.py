from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.evaluation.comparison import compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning.contract import Budget
from metarl.reporting.verdict import verdict


def curve(agent: str, last: Any, seeds: int = 1, **changes: Any) -> AdaptationCurve:
    """Scores of 0 before adaptation and of `last` `(tasks,)` after it, the same for every seed but for a shift."""
    last = np.asarray(last, dtype=np.float64)
    shift = np.linspace(-0.1, 0.1, seeds)[:, None] if seeds > 1 else np.zeros((1, 1))
    fields: dict[str, Any] = {
        "agent": agent,
        "family": "mine/Family-v0",
        "preset": None,
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": tuple(range(seeds)),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": (0, 3),
        "env_steps": (0, 4000),
        "shots": None,
        "per_task": np.stack([np.zeros((seeds, len(last))), last + shift], -1),
        "budget": Budget(1, 40),
    }
    return AdaptationCurve(**(fields | changes))


TASKS = np.arange(10.0)


def test_the_best_agent_is_named_with_its_lead_and_p() -> None:
    said = verdict(compare([curve("slow", TASKS, 5), curve("fast", TASKS + 2, 5), curve("slower", TASKS - 1, 5)]))
    assert said.sentence.startswith("fast is best on mine/Family-v0: return 6.50 [")
    assert "after 3 gradient steps, ahead of slow, the next, by 2.00 [" in said.sentence
    assert "], p 0.0" in said.sentence.replace("p = ", "p ").replace("< ", "0.0")
    assert said.sentence.endswith("; measured on 10 unseen test tasks, 5 training seeds each.")
    assert not said.limits


def test_a_lead_that_may_be_chance_makes_no_best_agent() -> None:
    noise = np.array([3.0, -3.0] * 5)
    said = verdict(compare([curve("a", TASKS), curve("b", TASKS + noise + 0.1)]))
    assert said.sentence.startswith("No agent is shown to be best on mine/Family-v0: b ends first, return 4.60")
    assert "ahead of a, the next, by 0.10 [-" in said.sentence


def test_without_a_p_value_it_is_of_these_runs_alone() -> None:
    said = verdict(compare([curve("a", TASKS), curve("b", TASKS - 2)]))
    assert said.sentence.startswith("In these runs a did best on mine/Family-v0: return 4.50")
    assert "by 2.00 [2.00, 2.00]; measured" in said.sentence
    assert said.limits[0] == "There is no p-value: it needs at least 5 training seeds of each trained agent."
    assert "One training seed of a, b: its intervals say nothing of another training." in said.limits


def test_a_p_value_above_the_bound_overrules_the_interval() -> None:
    said = verdict(compare([curve("a", [1.0, 2.0], 5), curve("b", [2.0, 3.0], 5)]))
    assert said.sentence.startswith("No agent is shown to be best")  # with two tasks no p is below .5
    assert "With 2 tasks no p can be below 0.5." in said.limits


def test_alike_agents_have_no_best() -> None:
    assert verdict(compare([curve("a", TASKS), curve("b", TASKS)])).sentence.startswith("No agent is shown to be best")


def test_errors_are_better_when_lower_and_accuracies_have_points() -> None:
    errors = [curve("a", TASKS + 1, score="mse"), curve("b", TASKS + 3, score="mse")]
    assert "a did best on mine/Family-v0: mean squared error 5.5000 [" in verdict(compare(errors)).sentence
    assert "by 2.0000 [2.0000, 2.0000];" in verdict(compare(errors)).sentence
    shots = {"score": "accuracy", "gradient_steps": None, "env_steps": None, "shots": (0, 1)}
    pictures = [curve("a", TASKS / 10, **shots), curve("b", TASKS / 10 + 0.05, **shots)]
    assert "b did best on mine/Family-v0: accuracy 50.00 [" in verdict(compare(pictures)).sentence
    assert "] % after 1 shot, ahead of a, the next, by 5.00 [5.00, 5.00] points;" in verdict(compare(pictures)).sentence


def test_the_marks_of_the_scale_do_not_compete() -> None:
    marks = [curve("oracle", TASKS + 9, trained=False), curve("ppo-oracle", TASKS + 8), curve("random", TASKS - 9)]
    said = verdict(compare([*marks, curve("a", TASKS)]))
    assert said.sentence.startswith("a reaches return 4.50 [")
    assert "4.50 [" in said.sentence.partition("after 3 gradient steps")[2]  # its gain
    assert said.limits[0] == "There is no other agent to compare it with."
    assert verdict(compare(marks[:1])).sentence.startswith("oracle reaches return 13.50")


def test_an_agent_that_does_not_adapt_has_no_gain() -> None:
    flat = curve("still", TASKS, gradient_steps=None, env_steps=None, per_task=np.stack([TASKS, TASKS], -1)[None])
    said = verdict(compare([flat]))
    assert said.sentence.startswith("still reaches return 4.50 [")
    assert "without adapting on mine/Family-v0; measured" in said.sentence


def test_a_single_score_is_not_said_to_be_of_an_agent_that_does_not_adapt() -> None:
    one = {"gradient_steps": None, "env_steps": (0,), "per_task": TASKS[None, :, None]}
    assert ": return 4.50 [" in verdict(compare([curve("a", TASKS, **one), curve("b", TASKS - 1)])).sentence
    said = verdict(compare([curve("rl2", TASKS, **one, regret=(0.5,) * 12)]))
    assert "] in 12 pulls on mine/Family-v0; measured" in said.sentence


def test_seeds_are_those_of_trained_agents() -> None:
    untrained = [curve("ucb1", TASKS + 1, trained=False), curve("psrl", TASKS - 1, trained=False)]
    assert verdict(compare(untrained)).sentence.endswith("measured on 10 unseen test tasks.")
    said = verdict(compare([*untrained, curve("rl2", TASKS)])).sentence
    assert said.endswith("measured on 10 unseen test tasks, 1 training seed of rl2.")
    said = verdict(compare([*untrained, curve("rl2", TASKS), curve("maml", TASKS - 4, 2)])).sentence
    assert said.endswith("1 to 2 training seeds of each trained agent.")


def test_who_diverged_least_comes_first() -> None:
    broken = np.where(TASKS == 3, np.nan, TASKS + 100)
    said = verdict(compare([curve("broken", broken), curve("whole", TASKS)]))
    assert "whole ends first, return 4.50" in said.sentence
    assert "broken is next" in said.sentence
    both = verdict(compare([curve("broken", broken), curve("worse", np.where(TASKS < 5, np.nan, TASKS))]))
    assert "broken ends first" in both.sentence
    assert "10 % of its scores diverged; its mean leaves them out." in both.limits
    nothing = verdict(compare([curve("lost", np.full(10, np.nan)), curve("whole", TASKS)]))
    assert "whole ends first" in nothing.sentence


def test_reused_tasks_say_nothing_of_unseen_ones() -> None:
    said = verdict(compare([curve("a", TASKS, unseen=False, task_of=tuple(range(10)))]))
    assert "measured on 10 test tasks," in said.sentence
    assert "How it does on tasks it was not trained on: these are reused." in said.limits


@given(
    scores=st.lists(st.lists(st.floats(-1e4, 1e4) | st.just(np.nan), min_size=4, max_size=4), min_size=1, max_size=4),
    score=st.sampled_from(["return", "accuracy", "mse"]),
)
@settings(max_examples=30, deadline=None)
def test_every_comparison_has_a_verdict_of_one_line(scores: list[list[float]], score: str) -> None:
    curves = [curve(f"agent {i}", values, score=score) for i, values in enumerate(scores)]
    said = verdict(compare(curves))
    assert "nan" not in said.sentence
    assert len(said.sentence.splitlines()) == 1
    ranks = {c.agent: (c.diverged[-1], -np.nanmean(c.better[..., -1])) for c in curves if c.diverged[-1] < 1}
    if ranks:
        opening = said.sentence.partition(", ahead of")[0].partition(" is next")[0]
        assert any(agent in opening for agent, rank in ranks.items() if rank == min(ranks.values()))


@pytest.mark.parametrize("seeds", [(5, 5), (5, 6)])
def test_seeds_are_counted(seeds: tuple[int, int]) -> None:
    said = verdict(compare([curve("a", TASKS, seeds[0]), curve("b", TASKS + 3, seeds[1])]))
    number = "5" if seeds[0] == seeds[1] else "5 to 6"
    assert said.sentence.endswith(f"{number} training seeds each.")
