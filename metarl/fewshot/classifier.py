"""A scikit-learn classifier that learns new classes from a few pictures.

    classifier = FewShotClassifier("runs/glyphs").fit(files, labels)
    classifier.predict(others)

`fit` keeps the pictures it is shown; `predict` puts them beside the new ones, as the support and query set of
one task, before the trained learner: the same computation as in the learner's evaluation.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot import LEARNERS, baseline_plus, embedding, maml
from metarl.fewshot.backbones import BatchNormMode
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets import make_dataset
from metarl.fewshot.datasets.archives import Preparation, opened, reading
from metarl.fewshot.embedding import EmbeddingNetwork
from metarl.fewshot.images import ImageSource
from metarl.fewshot.logistic import Logistic
from metarl.fewshot.networks import Classifier, check_ways
from metarl.fewshot.protonet import ProtoNet
from metarl.fewshot.transfer import FittedHead, HeadConfig
from metarl.learner import UserError
from metarl.runs import Run

Trained = embedding.Trained | maml.Trained
QUERIES = 1000  # pictures classified together, so that memory does not grow with their number
RULES: dict[str, Callable[[nn.Module, BatchNormMode], EmbeddingNetwork]] = {
    "centroid": ProtoNet,
    "logistic": partial(Logistic, c=1.0),
    "baseline": partial(FittedHead, config=HeadConfig(), scale=None),
    "baseline++": partial(FittedHead, config=HeadConfig(), scale=baseline_plus.TASK_SCALE),
}


class InputError(UserError, ValueError):
    """A mistake in what the user gave; a ValueError too, as scikit-learn's callers expect."""


def load_run(folder: str | Path, batch_norm: BatchNormMode | None = None) -> tuple[Run, Trained]:
    """A few-shot run and its trained learner, from its last checkpoint; the data set itself is not read.

    Args:
        folder: of the run.
        batch_norm: another mode than the run's: `transductive` and `support` may stand for each other.

    Raises:
        UserError: there is no such run, it has no checkpoint, or it does not classify images.
    """
    name = Run.open(folder).learner
    if name not in LEARNERS:
        raise UserError(f"{folder} is a run of {name}, which classifies no images; give one of {', '.join(LEARNERS)}")
    learner = importlib.import_module(LEARNERS[name][0])
    run = Run.open(folder, learner.Config)
    try:
        source = make_dataset(run.source["name"], **run.source["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} names a data set that cannot be made: {error}") from None
    if not isinstance(source, ImageSource):
        raise UserError(f"{folder} was trained on {run.source['name']}, which has no classes; give a run on images")
    if batch_norm is not None and batch_norm != run.config.batch_norm:
        if "running" in (batch_norm, run.config.batch_norm):
            raise UserError(f"{folder} was trained with batch norm {run.config.batch_norm}, which cannot be changed")
        run.config = replace(run.config, batch_norm=batch_norm)
    return run, learner.load(run, source)


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learns classes from a few pictures each, as a scikit-learn estimator.

    Pictures are a list of files or of PIL images, or an array: `(N, height, width)`, `(N, height, width,
    channels)`, or flat `(N, height * width * channels)`, of bytes 0..255 (uint8) or floats in [0, 1]. They are prepared
    as the learner's data set prepared its own: size, channels, and for letters the ink turned light (Omniglot,
    glyphs: give dark ink on light paper). Classes may have different numbers of pictures.

    A learner that compares embeddings takes any number of classes; one that adapts a head (MAML, FOMAML,
    ANIL, Meta-SGD, Reptile) takes up to the ways it was trained with. In the batch-norm mode `transductive` a
    prediction depends on the other pictures of the call, up to 1,000 of them; in the other modes it does not.

    Args:
        learner: a run folder; what a few-shot learner's `load` returns; or any `nn.Module` from images
            `(B, channels, height, width)` to features `(B, F)`. None: the pixels themselves.
        rule: how features become classes: `centroid`, `logistic`, `baseline` or `baseline++`, as the learners
            of these names do it. None: the learner's own; `centroid` for an encoder.
        batch_norm: what images are normalised with, see `metarl.fewshot.backbones`. None: as the learner was
            trained; `running` for an encoder. A learner that is already loaded keeps its own.
        preparation: how pictures become images. None: as the learner's data set has it. An encoder without one gets
            pictures as they are: bytes in units of 255, other numbers unchanged, flat rows flat.

    Attributes:
        classes_: the labels, sorted.
        batch_norm_: the batch-norm mode in use.
        n_features_in_: numbers in a picture, where `fit` was given flat ones.
    """

    def __init__(
        self,
        learner: Any = None,
        rule: str | None = None,
        batch_norm: BatchNormMode | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        self.learner = learner
        self.rule = rule
        self.batch_norm = batch_norm
        self.preparation = preparation

    @plain_torch()
    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # noqa: N803 - scikit-learn's name
        """Learn classes from labelled pictures.

        Args:
            X: N pictures, see the class.
            y: their N labels, strings or integers, of at least two classes.

        Raises:
            ValueError: pictures or labels are not as described.
            UserError: a picture or the run cannot be read, or there are more classes than a head tells apart.
        """
        if _flat(X):
            X, y = validate_data(self, X, y, dtype="numeric")  # noqa: N806 - scikit-learn's name
        else:
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        check_classification_targets(y)
        self._model, self._preparation = self._loaded()
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("these labels are of 1 class; a classifier needs at least 2")
        network: Any = self._model.network if isinstance(self._model, Trained) else self._model
        if isinstance(network, Classifier):
            check_ways(len(self.classes_), network.ways)
        self.batch_norm_ = network.batch_norm
        self._support = self._tensor(images(X, self._preparation))
        self._labels = torch.from_numpy(index.astype(np.int64)).to(self._support.device)
        return self

    @plain_torch()
    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803 - scikit-learn's name
        """Probabilities `(N, classes)`, in the order of `classes_`; a row sums to 1.

        Raises:
            ValueError: the pictures are not as described, or do not fit those learned from.
            UserError: a picture cannot be read.
        """
        check_is_fitted(self)
        if _flat(X):
            X = validate_data(self, X, dtype="numeric", reset=False)  # noqa: N806 - scikit-learn's name
        query = self._tensor(images(X, self._preparation))
        if query.shape[1:] != self._support.shape[1:]:
            shapes = [tuple(each.shape[1:]) for each in (query, self._support)]
            raise InputError(f"these images are {shapes[0]}, those learned from are {shapes[1]}; give a preparation")
        return np.concatenate([self._probabilities(part) for part in torch.split(query, QUERIES)])

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803 - scikit-learn's name
        """The likeliest label of each picture `(N,)`; raises what `predict_proba` raises."""
        likeliest = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[likeliest]
        return labels

    def _probabilities(self, query: Tensor) -> NDArray[np.float64]:
        blank = torch.zeros(1, len(query), dtype=torch.int64, device=query.device)
        batch = Batch(self._support[None], self._labels[None], query[None], blank)
        found = self._model.log_probabilities(batch, len(self.classes_))[0]
        return np.asarray(found.double().softmax(-1).cpu().numpy())

    def _loaded(self) -> tuple[Trained | EmbeddingNetwork, Preparation | None]:
        """The learner under its rule, and how pictures become its images."""
        given, rule = self.learner, self.rule
        if rule is not None and rule not in RULES:
            raise InputError(f"there is no rule {rule!r}; choose from {', '.join(RULES)}")
        if given is None or isinstance(given, nn.Module):
            encoder = nn.Flatten() if given is None else copy.deepcopy(given)
            return RULES[rule or "centroid"](encoder, self.batch_norm or "running").eval(), self.preparation
        if isinstance(given, str | Path):
            given = load_run(given, self.batch_norm)[1]
        if not isinstance(given, Trained) or not isinstance(given.source, ImageSource):
            raise InputError(
                f"a learner is a run folder, a loaded learner of images or an nn.Module, not {given!r:.100}"
            )
        preparation = self.preparation or given.source.preparation
        if rule is None:
            return given, preparation
        if isinstance(given, maml.Trained):
            raise InputError(
                f"rule {rule!r} is for learners with an encoder; this one adapts its network, leave it out"
            )
        return RULES[rule](given.network.encoder, given.network.batch_norm).eval(), preparation

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Images as the learner takes them: its device and its floating-point type, bytes in units of 255."""
        if isinstance(self._model, maml.Trained):
            held = list(self._model.params.values())
        else:
            module = self._model.network if isinstance(self._model, Trained) else self._model
            held = list(module.parameters())
        like = held[0] if held else torch.zeros((), dtype=torch.float64)
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like)
        return tensor / 255 if values.dtype == np.uint8 else tensor


def images(pictures: Any, preparation: Preparation | None) -> NDArray[Any]:
    """Pictures as images `(N, channels, height, width)`; flat rows stay flat where there is no preparation.

    Raises:
        InputError: they are not as `FewShotClassifier` describes them.
        UserError: one cannot be read.
    """
    if _named_or_opened(pictures):
        return _same_shape([_image(i, picture, preparation) for i, picture in enumerate(pictures)])
    values = check_array(pictures, dtype="numeric", ensure_2d=False, allow_nd=True)
    if preparation is None:
        return np.array(values if values.ndim == 2 else _with_channels(values).transpose(0, 3, 1, 2))
    channels, height, width = preparation.image_shape
    if values.ndim == 2:
        if values.shape[1] != channels * height * width:
            raise InputError(
                f"flat pictures for this learner have {height} x {width} x {channels} numbers, not {values.shape[1]}"
            )
        values = values.reshape(-1, height, width, channels)
    values = _with_channels(values)
    if values.shape[3] not in (1, 3):
        raise InputError(f"a picture has 1 or 3 channels, on the last axis; these are {values.shape[1:]}")
    return np.stack([preparation.of(Image.fromarray(each)) for each in _bytes(values)])


def _with_channels(values: NDArray[Any]) -> NDArray[Any]:
    """`(N, height, width, channels)`."""
    return values[..., None] if values.ndim == 3 else values


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pictures as Pillow takes them: `(N, height, width)` grey or `(N, height, width, 3)`, uint8."""
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"pictures are uint8, or in [0, 1]; these go from {values.min():g} to {values.max():g}")
        values = np.round(values * 255.0).astype(np.uint8)
    return values[..., 0] if values.shape[3] == 1 else values


def _named_or_opened(pictures: Any) -> bool:
    """Whether pictures come as files or PIL images rather than as numbers."""
    if not isinstance(pictures, list | tuple | np.ndarray) or len(pictures) == 0:
        return False
    return isinstance(pictures[0], str | Path | Image.Image)


def _flat(pictures: Any) -> bool:
    """Whether scikit-learn's rules for tables apply."""
    return not _named_or_opened(pictures) and np.asarray(pictures).ndim not in (3, 4)


def _image(i: int, picture: Any, preparation: Preparation | None) -> NDArray[np.uint8]:
    """One file or PIL image as `(channels, height, width)`."""
    advice = "replace or remove this picture"
    if isinstance(picture, str | Path):
        with reading(str(picture), advice):
            data = Path(picture).read_bytes()
        with opened(data, str(picture)) as file:
            return (preparation or _as_is(file)).of(file)
    if not isinstance(picture, Image.Image):
        raise InputError(
            f"picture {i} is a {type(picture).__name__}; give only files, or only PIL images, or one array"
        )
    with reading(f"picture {i}", advice):
        return (preparation or _as_is(picture)).of(picture)


def _as_is(picture: Image.Image) -> Preparation:
    """A preparation that changes nothing."""
    return Preparation("L" if picture.mode in ("1", "L", "I;16", "I", "F") else "RGB", picture.size[::-1])


def _same_shape(found: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    shapes = sorted({each.shape for each in found})
    if len(shapes) > 1:
        raise InputError(
            f"pictures of different shapes, {shapes[0]} and {shapes[-1]}: give a preparation with one size"
        )
    return np.stack(found)
