"""MAML-TRPO and ProMP with their tasks shared out over processes: one process's parameters, bit for bit."""

import numpy as np
import pytest
import rank_work
from rank_processes import world

CASES = [  # agent, double precision, options
    ("maml-trpo", True, {}),
    ("maml-trpo", False, {"inner_steps": 2, "curvature_fraction": 0.5, "validate_every": 5, "validation_tasks": 3}),
    ("promp", True, {"updates": 2}),
    ("promp", False, {"inner_steps": 2, "updates": 2}),
    ("promp", False, {"credit": "returns", "inner_steps": 2, "updates": 2}),
    ("promp", True, {"credit": "none", "updates": 2}),
]
MERGED = ("baseline/explained_variance_support", "baseline/explained_variance_query")  # of moments, not of all steps


@pytest.fixture(scope="module")
def alone():
    return world(1, rank_work.meta_updates, CASES)[0]


@pytest.mark.parametrize("size", [2, 4])
def test_parameters_after_5_meta_updates_are_those_of_one_process(alone, size):
    """5 tasks are 3 shards: 2 and 3 tasks on two processes; 2, 2, 1 on four, of which the last repeats the third."""
    ranks = world(size, rank_work.meta_updates, CASES)
    for i, case in enumerate(CASES):
        first, lines = alone[i]
        for rank in ranks:
            parameters, metrics = rank[i]
            np.testing.assert_array_equal(parameters, first, str(case))
            assert parameters.dtype == (np.float64 if case[1] else np.float32)
            for here, there in zip(lines, metrics, strict=True):
                assert there == pytest.approx(here, rel=1e-12)
                assert [name for name in here if here[name] != there[name]] in ([], *([n] for n in MERGED), [*MERGED])
