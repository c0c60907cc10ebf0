"""metarl: meta-learning in PyTorch, for reinforcement learning and few-shot learning on one core.

A task gives support data to adapt on and query data to be judged on; an inner loop turns shared parameters into
task parameters; an outer loop improves the shared ones over many tasks; an adaptation curve shows what each bit of
adaptation bought on tasks never trained on.

    import metarl

    family = metarl.make_family("metarl/Navigation2D-v0")
    agent = metarl.train("maml-trpo", family, out="runs/nav", iterations=10)
    print(metarl.measure(agent).mean)                                       # after 0, 1, 2, 3 gradient steps
    adapted = agent.adapt({"goal": [0.3, -0.2]}, steps=3)                   # or a Gymnasium environment
    action, state = adapted.predict([0.0, 0.0])

Every name below has a docstring with an example. They load when they are first used, so that this import is quick;
everything else is in the modules: `metarl.envs`, `metarl.agents`, `metarl.fewshot`, ...
"""

import importlib
from typing import TYPE_CHECKING, Any

from metarl.version import __version__

if TYPE_CHECKING:
    from metarl.envs.wrappers.gym_family import GymFamily
    from metarl.errors import UserError
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.evaluation.merging import merge_seeds
    from metarl.experiments.catalogue import (
        list_agents,
        list_datasets,
        list_families,
        make_agent,
        make_dataset,
        make_family,
    )
    from metarl.experiments.judging import compare, film, measure
    from metarl.experiments.training import load, train
    from metarl.fewshot.classifier import FewShotClassifier
    from metarl.learning.contract import Budget
    from metarl.meta.inner import Rule, adapt
    from metarl.meta.outer import meta_gradient
    from metarl.reporting.plots import plot_curves
    from metarl.runs.callbacks import Callback
    from metarl.runs.run import Run
    from metarl.tasks import TaskFamily, Tasks, TaskVectorEnv

_NAMES = {  # where each public name lies
    **dict.fromkeys(("make_family", "make_dataset", "make_agent"), "metarl.experiments.catalogue"),
    **dict.fromkeys(("list_families", "list_datasets", "list_agents"), "metarl.experiments.catalogue"),
    **dict.fromkeys(("train", "load"), "metarl.experiments.training"),
    **dict.fromkeys(("measure", "compare", "film"), "metarl.experiments.judging"),
    "AdaptationCurve": "metarl.evaluation.curve",
    "Budget": "metarl.learning.contract",
    "Callback": "metarl.runs.callbacks",
    "FewShotClassifier": "metarl.fewshot.classifier",
    "GymFamily": "metarl.envs.wrappers.gym_family",
    "Rule": "metarl.meta.inner",
    "Run": "metarl.runs.run",
    "TaskFamily": "metarl.tasks",
    "TaskVectorEnv": "metarl.tasks",
    "Tasks": "metarl.tasks",
    "UserError": "metarl.errors",
    "adapt": "metarl.meta.inner",
    "merge_seeds": "metarl.evaluation.merging",
    "meta_gradient": "metarl.meta.outer",
    "plot_curves": "metarl.reporting.plots",
}

__all__ = [
    "AdaptationCurve",
    "Budget",
    "Callback",
    "FewShotClassifier",
    "GymFamily",
    "Rule",
    "Run",
    "TaskFamily",
    "TaskVectorEnv",
    "Tasks",
    "UserError",
    "__version__",
    "adapt",
    "compare",
    "film",
    "list_agents",
    "list_datasets",
    "list_families",
    "load",
    "make_agent",
    "make_dataset",
    "make_family",
    "measure",
    "merge_seeds",
    "meta_gradient",
    "plot_curves",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name, when it is first used."""
    if name not in _NAMES:
        raise AttributeError(f"module 'metarl' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_NAMES[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, and the modules that have been imported."""
    return sorted({*globals(), *__all__})
