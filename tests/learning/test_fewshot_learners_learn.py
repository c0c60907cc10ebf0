"""Every few-shot learner learns to tell letters of scripts apart that it has never seen, in seconds.

5-way 1-shot on Cyrillic after a short training on Latin and Greek; chance is 0.2, and the same learner untrained
scores 0.2 to 0.36 with the same data (what each reached here: in CASES).
"""

from dataclasses import replace

import pytest

from metarl import registry
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.learning.contract import Budget
from metarl.runs.run import Run

SOURCE = Glyphs(ways=5, shots=1, queries=5)
MAML = {"iterations": 60, "tasks": 8, "strategy": "vmap", "outer_step_size": 5e-3}
TRANSFER = {"iterations": 250, "step_size": 5e-3}
CASES = {  # settings, gradient steps of the curve, the least accuracy, how much better than untrained
    "maml": (MAML, 1, 0.42, 0.15),  # 0.50, untrained 0.23
    "fomaml": (MAML, 1, 0.43, 0.18),  # 0.51, untrained 0.24
    "anil": (MAML, 1, 0.38, 0.12),  # 0.45, untrained 0.22
    "meta-sgd": ({**MAML, "outer_step_size": 2e-2}, 1, 0.50, 0.25),  # 0.60, untrained 0.20
    "reptile": ({"iterations": 60, "strategy": "loop"}, 1, 0.48, 0.15),  # 0.59, untrained 0.29
    "protonet": ({"iterations": 60, "train_queries": None}, 1, 0.42, 0.06),  # 0.50, untrained 0.34
    "matchingnet": ({"iterations": 60}, 1, 0.50, 0.12),  # 0.60, untrained 0.36
    "r2d2": ({"iterations": 60}, 1, 0.65, 0.25),  # 0.79, untrained 0.31
    "meta-baseline": ({"iterations": 60}, 1, 0.53, 0.15),  # 0.64, untrained 0.38
    "centroid": (TRANSFER, 1, 0.44, 0.08),  # 0.54, untrained 0.34
    "logistic": (TRANSFER, 1, 0.44, 0.08),
    "baseline": (TRANSFER, 1, 0.36, 0.12),  # 0.47, untrained 0.20
    "baseline++": (TRANSFER, 1, 0.36, 0.06),
}


def accuracy(name, config, folder, steps):
    learner = registry.learner(name)
    run = Run.create(folder, learner=name, config=config, source=SOURCE, seed=0)
    learner.train(config, SOURCE, run)
    curve = learner.load(run, SOURCE).curve(SOURCE.fixed("validation", 100), Budget(steps=steps), 0)
    return curve.values[:, -1].mean()


def still(config):
    """One iteration that moves nothing: the learner before it has learned."""
    rate = {"outer_step_size": 1e-12} if hasattr(config, "outer_step_size") else {"step_size": 1e-12}
    return replace(config, iterations=1, **rate)


def test_every_learner_has_a_case():
    assert set(CASES) == {name for name, entry in registry.agents().items() if entry.source == "dataset"}


@pytest.mark.learning
@pytest.mark.parametrize("name", CASES)
def test_it_learns_to_tell_unseen_letters_apart(name, tmp_path):
    settings, steps, least, gain = CASES[name]
    defaults = registry.learner(name).DEFAULTS["glyphs"]
    config = replace(defaults, width=16, checkpoint_every=1000, **settings)
    before = accuracy(name, still(config), tmp_path / "before", steps)
    after = accuracy(name, config, tmp_path / "after", steps)
    assert after > least
    assert after > before + gain
