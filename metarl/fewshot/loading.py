"""A run of few-shot learning, loaded to classify pictures, on any device."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarl.errors import UserError
from metarl.fewshot import LEARNERS
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.inputs import InputError
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.initialisation import TrainedInitialisation
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.parallel import choose_device
from metarl.registry import check_code, source_of
from metarl.runs.run import Run

Trained = TrainedEmbedding | TrainedInitialisation


def load_run(
    folder: str | Path, batch_norm: BatchNormMode | None = None, device: str = "cpu", *, trust: bool = False
) -> tuple[Run, Trained]:
    """A few-shot run and its trained learner, from its last checkpoint; no data set of this package is read.

    Args:
        folder: of the run.
        batch_norm: another mode than the run's: `transductive` and `support` may stand for each other.
        device: where it computes, wherever it was trained; see `metarl.parallel.choose_device`.
        trust: whether code that config.json names may be imported, though nobody else has named it.

    Raises:
        UserError: there is no such run or device, it has no checkpoint, its data set's class is not here, or it does
            not classify images.
    """
    name = Run.open(folder).learner
    if name not in LEARNERS:
        raise UserError(f"{folder} is a run of {name}, which classifies no images; give one of {', '.join(LEARNERS)}")
    check_code(Run.open(folder).record, Path(folder), trust)
    learner = importlib.import_module(LEARNERS[name][0])
    run = Run.open(folder, learner.Config, choose_device(device))
    # Of use to a data set of somebody else's, whose pictures say how they are prepared.
    root = run.recall("data_root", str)
    source = source_of(run, **({"data_root": Path(root)} if root is not None and Path(root).exists() else {}))
    if not isinstance(source, ImageSource):
        raise UserError(f"{folder} was trained on {run.source['name']}, which has no classes; give a run on images")
    if batch_norm is not None and batch_norm != run.config.batch_norm:
        if "running" in (batch_norm, run.config.batch_norm):
            raise UserError(f"{folder} was trained with batch norm {run.config.batch_norm}, which cannot be changed")
        run.config = replace(run.config, batch_norm=batch_norm)
    return run, learner.load(run, source)


def moved(model: Any, device: str | torch.device | None) -> Any:
    """A model on a device; it is moved itself.

    Raises:
        InputError: this machine has no such device.
    """
    if device is None:
        return model
    try:
        return model.to(choose_device(device))
    except UserError as error:
        raise InputError(str(error)) from None
