"""Data sets for few-shot learning, by name; their modules load when they are asked for."""

import importlib
from typing import Any

DATASETS = {
    "sinusoid": "metarl.fewshot.datasets.sinusoid:Sinusoid",
    "glyphs": "metarl.fewshot.datasets.glyphs:Glyphs",
    "omniglot": "metarl.fewshot.datasets.omniglot:Omniglot",
    "cifar-fs": "metarl.fewshot.datasets.cifar_fs:CifarFS",
    "mini-imagenet": "metarl.fewshot.datasets.mini_imagenet:MiniImageNet",
    "folder": "metarl.fewshot.datasets.folder:Folder",
}


def make_dataset(name: str, **options: Any) -> Any:
    """A data set by its name; options are the fields of its class.

    Raises:
        UserError: there is no such data set, or an option is out of range.
        TypeError: no such option.
    """
    from metarl.errors import UserError  # not at the top: the names alone load nothing

    if name not in DATASETS:
        raise UserError(f"no data set {name!r}; choose from {', '.join(DATASETS)}")
    module, _, attribute = DATASETS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(**options)
