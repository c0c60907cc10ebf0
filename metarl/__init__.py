"""metarl: meta-learning in PyTorch, for reinforcement learning and few-shot learning on one core.

A task gives support data to adapt on and query data to be judged on; `metarl.meta.inner` turns shared
parameters into task parameters; `metarl.meta.outer` improves the shared parameters over many tasks;
`metarl.evaluation` shows what each bit of adaptation bought on tasks never trained on.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("metarl")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
