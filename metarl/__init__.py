"""metarl: meta-learning in PyTorch, for reinforcement learning and few-shot learning on one core.

A task gives support data to adapt on and query data to be judged on; `metarl.meta.inner` turns shared
parameters into task parameters; `metarl.meta.outer` improves the shared parameters over many tasks;
`metarl.evaluation` shows what each bit of adaptation bought on tasks never trained on.
"""

from metarl.version import __version__

__all__ = ["__version__"]
