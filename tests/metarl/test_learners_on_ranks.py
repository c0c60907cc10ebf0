"""RL² and the few-shot learners with their tasks shared out over processes: what one process learns."""

import re

import numpy as np
import pytest
import rank_learners
from rank_processes import world

BANDIT = {"trials": 7, "hidden": 8, "epochs": 2}
BELIEF = BANDIT | {"belief_updates": 2}
JUDGED = {"validate_every": 5, "validation_tasks": 3}
EPISODES = {"tasks": 5, "train_ways": 3, "train_queries": 2, "width": 4}
CASES = {  # learner, double precision, options
    "rl2": (
        "rl2",
        False,
        BANDIT | {"minibatches": 3, "normalise_rewards": True} | JUDGED,
    ),
    "rl2, float64": ("rl2", True, BANDIT | {"minibatches": 3, "normalise_rewards": True}),
    "rl2, a transformer in chunks": (
        "rl2",
        False,
        BANDIT | {"memory": "transformer", "heads": 2, "chunk": 4, "minibatches": 4},
    ),
    "rl2, transitions and a hypernetwork": (
        "rl2",
        False,
        BANDIT | {"memory": "mingru", "token": "transition", "chunk": 4, "actor": "hypernetwork", "minibatches": 4},
    ),
    "rl2, fewer sequences than ranks": ("rl2", False, BANDIT | {"minibatches": 7}),
    "varibad": ("varibad", False, BELIEF | {"minibatches": 3, "belief_trials": 9, "buffer_added": 3}),
    "varibad, fewer trials than ranks": ("varibad", False, BELIEF | {"belief_trials": 1}),
    "meta-sgd": ("meta-sgd", False, {"tasks": 5, "strategy": "loop", "waves": True}),
    "maml, threads": ("maml", True, {"tasks": 5, "strategy": "threads", "clip": 0.01, "width": 4}),
    "maml, vmap, float64": ("maml", True, {"tasks": 5, "strategy": "vmap", "waves": True}),
    "fomaml, an encoder that draws and follows": (
        "fomaml",
        False,
        {"tasks": 5, "strategy": "loop", "encoder": "dropped"},
    ),
    "reptile": ("reptile", False, {"tasks": 5, "strategy": "loop", "waves": True, "inner_step_size": 0.01}),
    "protonet": ("protonet", False, EPISODES | {"encoder": "normed"}),
    "protonet, cumulative averages": ("protonet", False, EPISODES | {"encoder": "averaged"}),
    "protonet, float64": ("protonet", True, EPISODES | {"encoder": "normed"}),
    "matchingnet, float64": ("matchingnet", True, EPISODES | {"encoder": "normed", "full_context": True}),
    "r2d2": ("r2d2", False, EPISODES | {"encoder": "normed"}),
    "meta-baseline": ("meta-baseline", False, EPISODES | {"encoder": "normed"}),
    "baseline": ("baseline", False, {"minibatch": 10, "encoder": "normed"}),
    "baseline++, float64": ("baseline++", True, {"minibatch": 10, "width": 4, "batch_norm": "transductive"}),
}
SAME_BITS = {"meta-sgd", "maml, threads", "fomaml, an encoder that draws and follows", "reptile"}
FOUR_RANKS = (
    "rl2",
    "rl2, float64",
    "rl2, fewer sequences than ranks",
    "varibad, fewer trials than ranks",
    "meta-sgd",
    "protonet",
    "protonet, float64",
    "baseline",
)
# Shifts before batch normalisation do nothing: their gradients are rounding, of which Adam makes whole steps.
IDLE = re.compile(r"convolutions\.\d\.bias").search


@pytest.fixture(scope="module")
def alone():
    return world(1, rank_learners.trainings, list(CASES.values()))[0]


@pytest.mark.parametrize("size", [2, 4])
def test_parameters_after_5_iterations_are_those_of_one_process(alone, size):
    """Shares of 2 and 3, or 1, 1, 1 and 2 of 5 tasks; of 3 and 4, or 1, 2, 2 and 2 of 7 trials."""
    names = list(CASES) if size == 2 else FOUR_RANKS
    ranks = world(size, rank_learners.trainings, [CASES[name] for name in names])
    for i, name in enumerate(names):
        double, (expected, lines) = CASES[name][1], alone[list(CASES).index(name)]
        for params, _ in (rank[i] for rank in ranks):
            assert params.keys() == expected.keys()
            far = np.sqrt(sum(((params[key] - value) ** 2.0).sum() for key, value in expected.items() if not IDLE(key)))
            far /= np.sqrt(sum((value**2.0).sum() for value in expected.values()))
            assert far <= (0 if name in SAME_BITS else 1e-12 if double else 1e-5), f"{name}: {far:.1e}"
            assert all(np.array_equal(value, ranks[0][i][0][key]) for key, value in params.items()), name
        metrics = ranks[0][i][1]  # rank 0 logs
        assert [line.keys() for line in metrics] == [line.keys() for line in lines]
        for here, there in zip(lines, metrics, strict=True):
            assert there == pytest.approx(here, rel=1e-4, abs=1e-6), name


def test_what_ranks_cannot_share_is_refused():
    for said in world(2, rank_learners.refusals):
        drawn, mixed, followed, kept = said
        assert "draws random numbers (dropout) for a whole minibatch" in drawn
        assert "depend on the images beside it, otherwise than by torch.nn.BatchNorm" in mixed
        assert "the encoder's seen follows the images it has seen" in followed
        assert "layers.1.running_mean follows the images" in kept
        assert kept.endswith("train it in one process, without torchrun, or with batch norm 'running'")


def test_all_ranks_begin_with_the_parameters_of_the_first():
    first, second = world(2, rank_learners.drawn_anew)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        ("rl2", BANDIT | {"minibatches": 3}),
        ("maml", {"tasks": 5, "strategy": "loop", "waves": True}),
    ],
)
def test_every_rank_blames_the_same_task_by_its_place_among_all(learner, options):
    assert world(2, rank_learners.diverges, learner, options, 4) == [([4], 7 if learner == "rl2" else 5)] * 2
