"""A scikit-learn classifier that learns new classes from a few pictures.

    classifier = FewShotClassifier("runs/glyphs").fit(files, labels)
    classifier.predict(others)

`fit` keeps the pictures it is shown; `predict` puts them beside the new ones, as the support and query set of
one task, before the trained learner: the same computation as in the learner's evaluation.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.pictures import Preparation, check_whole
from metarl.fewshot.datasets.reading import warn
from metarl.fewshot.estimate import Estimate, OutOfFold, Unknown, estimate, held_out, unknown, with_run
from metarl.fewshot.inputs import (
    InputError,
    Remarks,
    any_coloured,
    images,
    images_and_errors,
    is_flat,
    listed,
    named_or_opened,
)
from metarl.fewshot.learners import baseline_plus
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.feature_norm import with_feature_norm
from metarl.fewshot.learners.initialisation import TrainedInitialisation
from metarl.fewshot.learners.logistic import Logistic
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.transfer import FittedHead, HeadConfig
from metarl.fewshot.loading import Trained, load_run, moved
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.classifier import Classifier, check_ways
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.feature_norm import FeatureNorm, Normalised
from metarl.fewshot.pretrained.encoder import Pretrained

QUERIES = 1000  # pictures classified together at most, so that memory does not grow with their number
RULES: dict[str, Callable[[nn.Module, BatchNormMode], EmbeddingNetwork]] = {
    "centroid": ProtoNet,
    "logistic": partial(Logistic, c=1.0),
    "baseline": partial(FittedHead, config=HeadConfig(), scale=None),
    "baseline++": partial(FittedHead, config=HeadConfig(), scale=baseline_plus.TASK_SCALE),
}


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learns classes from a few pictures each, as a scikit-learn estimator.

    >>> pictures, labels = np.random.default_rng(0).random((10, 32, 32, 3)), ["cat", "dog"] * 5
    >>> encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Flatten())
    >>> classifier = FewShotClassifier(encoder, rule="logistic").fit(pictures, labels)    # or a run's folder
    >>> classifier.predict_proba(pictures[:2]).shape
    (2, 2)

    Pictures are files or PIL images in any sequence or iterator (a list, tuple, array, pandas.Series, generator, ...),
    of any sizes and modes where the learner or `size` says how large they become; or an array: `(N, height, width)`,
    `(N, height, width, channels)`, or flat `(N, height * width * channels)`, of bytes 0..255 (uint8) or floats in
    [0, 1]. They are seen as a person sees them (`metarl.fewshot.datasets.pictures`) and prepared as the learner's data
    set prepared its own: size, channels, and for letters the ink turned light (Omniglot, glyphs: give dark ink on light
    paper). A picture of a single colour is named in a warning. Classes may have different numbers of pictures.

    A learner that compares embeddings takes any number of classes; one that adapts a head (MAML, FOMAML,
    ANIL, Meta-SGD, Reptile) takes up to the ways it was trained with. In the batch-norm mode `transductive` a
    prediction depends on the other pictures of the call, up to 1,000 of them; in the other modes it does not.

    Args:
        learner: a run folder; what a few-shot learner's `load` returns; or any `nn.Module` from images
            `(B, channels, height, width)` to features `(B, F)`. None: the pixels themselves.
        rule: how features become classes: `centroid`, `logistic`, `baseline` or `baseline++`, as the learners
            of these names do it. None: the learner's own; `centroid` for an encoder.
        batch_norm: what images are normalised with, see `metarl.fewshot.networks.batch_norm`. None: as the learner was
            trained; `running` for an encoder. A learner that is already loaded keeps its own.
        preparation: how pictures become images. None: as the learner's data set has it. An encoder without one gets
            pictures as they are: bytes in units of 255, other numbers unchanged, flat rows flat.
        size: an encoder's pictures are resized to it, (height, width) or one number for both, with Pillow's LANCZOS
            filter. None: they stay as large as they are, and must be equally large.
        grey: an encoder's pictures get one channel (True) or three (False). None: one if all of those learned from
            are grey, else three.
        feature_norm: what features are compared by: as they are (none), of length 1 (l2), or first centred (cl2n,
            SimpleShot) on the mean of the training images' features, for which a run's data are read; an encoder
            without a run has none, and its features are centred on the mean of those learned from.
        device: where it computes, such as "cuda". None: where the learner lies.

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
        size: int | tuple[int, int] | None = None,
        grey: bool | None = None,
        feature_norm: FeatureNorm = "none",
        device: str | torch.device | None = None,
    ) -> None:
        self.learner = learner
        self.rule = rule
        self.batch_norm = batch_norm
        self.preparation = preparation
        self.size = size
        self.grey = grey
        self.feature_norm = feature_norm
        self.device = device

    @plain_torch()
    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # noqa: N803 - scikit-learn's name
        """Learn classes from labelled pictures.

        Args:
            X: N pictures, see the class.
            y: their N labels, strings or integers, of at least two classes.

        Raises:
            ValueError: pictures or labels are not as described.
            UserError: pictures (all of them are named) or the run cannot be read, or there are more classes than a
                head tells apart.
        """
        X, y = listed(X, "pictures"), listed(y, "labels")  # noqa: N806 - scikit-learn's name
        if is_flat(X):
            X, y = validate_data(self, X, y, dtype="numeric")  # noqa: N806 - scikit-learn's name
        else:
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        check_classification_targets(y)
        self.__dict__.pop("_out_of_fold", None)  # of the pictures learned from before
        self._model, self._preparation = self._loaded()
        self._mode_seen = self._preparation is None and self.grey is None  # taken from the pictures learned from
        if self._preparation is None:
            self._preparation = self._asked_for(X)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("these labels are of 1 class; a classifier needs at least 2")
        network: Any = self._model.network if isinstance(self._model, Trained) else self._model
        if isinstance(network, Classifier):
            check_ways(len(self.classes_), network.ways)
        self.batch_norm_ = network.batch_norm
        self._support = self._tensor(images(X, self._preparation))
        if self.feature_norm != "none" and network.feature_norm is None:
            self._normalise(network)
        self._together = min(QUERIES, self._affordable(network))
        self._labels = torch.from_numpy(index.astype(np.int64)).to(self._support.device)
        return self

    @plain_torch()
    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803 - scikit-learn's name
        """Probabilities `(N, classes)`, in the order of `classes_`; a row sums to 1.

        Raises:
            ValueError: the pictures are not as described, or do not fit those learned from.
            UserError: pictures cannot be read (all of them are named).
            NonFiniteError: a feature or a probability is NaN.
        """
        check_is_fitted(self)
        X = listed(X, "pictures")  # noqa: N806 - scikit-learn's name
        if is_flat(X):
            X = validate_data(self, X, dtype="numeric", reset=False)  # noqa: N806 - scikit-learn's name
        preparation = self._preparation
        if preparation is None and named_or_opened(X):  # learned from numbers, asked about files
            preparation = Preparation("L" if self._support.shape[1] == 1 else "RGB", None)
        if (
            self._mode_seen
            and preparation is not None
            and preparation.mode == "L"
            and any_coloured(X, preparation.size)
        ):
            raise InputError("these pictures have colours, those learned from are grey: give grey=True or grey=False")
        rows, errors = [], []
        remarks: Remarks = defaultdict(list)
        for start in range(0, max(len(X), 1), self._together):
            values, broken = images_and_errors(X[start : start + self._together], preparation, remarks, start)
            errors += broken
            if not errors:
                rows.append(self._probabilities(self._fitting(values)))
        check_whole(errors, len(X))
        warn("the pictures to classify", remarks)
        return np.concatenate(rows)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803 - scikit-learn's name
        """The likeliest label of each picture `(N,)`; raises what `predict_proba` raises."""
        likeliest = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[likeliest]
        return labels

    @plain_torch()
    def estimate(self) -> Estimate:
        """The accuracy to expect of `predict`, from the pictures learned from alone; see `metarl.fewshot.estimate`.

        With one picture a class it says what the run's own test tasks of as many classes had, where `learner` is a run
        folder that was evaluated so.
        """
        check_is_fitted(self)
        made = estimate(self._labels.cpu().numpy(), self._out_of_fold)
        return with_run(made, Path(self.learner), len(self.classes_)) if isinstance(self.learner, str | Path) else made

    @plain_torch()
    def unknown(self, rate: float = 0.05) -> Unknown:
        """Below which probability to call a picture unknown, so that about a share `rate` of known ones is.

        Raises:
            UserError: one picture a class, or `rate` is no share.
        """
        check_is_fitted(self)
        if not 0 < rate < 1:
            raise InputError(f"rate is the share of known pictures that may be called unknown, in (0, 1), not {rate:g}")
        return unknown(self._labels.cpu().numpy(), self._out_of_fold, self._judged, rate)

    @cached_property
    def _out_of_fold(self) -> OutOfFold:
        return held_out(self._labels.cpu().numpy(), self._judged)

    def _judged(self, support: NDArray[np.int64], query: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities of some pictures learned from, having learned from others, maybe of fewer classes."""
        kept, labels = np.unique(self._labels.cpu().numpy()[support], return_inverse=True)
        shown = self._support[support], torch.from_numpy(labels.astype(np.int64)).to(self._labels.device)
        return self._probabilities(self._support[query], shown, len(kept))

    def _normalise(self, network: EmbeddingNetwork) -> None:
        """Let an encoder without a run compare normalised features."""
        centre = None
        if self.feature_norm == "cl2n":
            with torch.no_grad():
                centre = network.encoded(self._support).double().mean(0)
        network.feature_norm = Normalised(centre)

    def _probabilities(
        self, query: Tensor, shown: tuple[Tensor, Tensor] | None = None, ways: int | None = None
    ) -> NDArray[np.float64]:
        """Of images, by all that was learned from, or by the images and labels shown, of so many classes."""
        support, labels = shown or (self._support, self._labels)
        blank = torch.zeros(1, len(query), dtype=torch.int64, device=query.device)
        batch = Batch(support[None], labels[None], query[None], blank)
        probabilities = self._model.log_probabilities(batch, ways or len(self.classes_))[0].double().softmax(-1)
        return np.asarray(probabilities.cpu().numpy())

    def _fitting(self, values: NDArray[Any]) -> Tensor:
        """Images to classify as tensors, if they are as large as those learned from."""
        query = self._tensor(values)
        if query.shape[1:] != self._support.shape[1:]:
            shapes = [tuple(each.shape[1:]) for each in (query, self._support)]
            raise InputError(
                f"these images are {shapes[0]}, those learned from are {shapes[1]}; give a preparation with one size"
            )
        return query

    def _asked_for(self, pictures: Any) -> Preparation | None:
        """How an encoder's pictures become images; None: numbers, taken as they are."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if size is None and self.grey is None and not named_or_opened(pictures):
            return None
        colours = any_coloured(pictures, size) if self.grey is None else not self.grey
        return Preparation("RGB" if colours else "L", size)

    def _affordable(self, network: Any) -> int:
        """Pictures that may be classified together within `chunks.BYTES`."""
        model: Any = self._model
        shape, like = self._support.shape[1:], self._support
        each = chunks.COPIES * like[0].numel() * like.element_size()
        if network.batch_norm != "running":
            encode = (
                partial(network.logits, model.params) if isinstance(model, TrainedInitialisation) else network.encoder
            )
            each += chunks.bytes_per_image(encode, shape, like)
        return max(1, chunks.BYTES // each)

    def _loaded(self) -> tuple[Trained | EmbeddingNetwork, Preparation | None]:
        """The learner under its rule, and how pictures become its images."""
        learner, rule, device = self.learner, self.rule, self.device
        if self.preparation is not None and (self.size is not None or self.grey is not None):
            raise InputError("preparation already says size and mode: give it, or size and grey")
        if self.feature_norm not in get_args(FeatureNorm):
            raise InputError(f"there is no feature_norm {self.feature_norm!r}; choose from none, l2, cl2n")
        if rule is not None and rule not in RULES:
            raise InputError(f"there is no rule {rule!r}; choose from {', '.join(RULES)}")
        if learner is None or isinstance(learner, nn.Module):
            encoder = nn.Flatten() if learner is None else copy.deepcopy(learner)
            made = RULES[rule or "centroid"](encoder, self.batch_norm or "running").eval()
            unasked = self.size is None and self.grey is None
            own = encoder.preparation if isinstance(encoder, Pretrained) and unasked else None
            return moved(made, device), self.preparation or own
        if isinstance(learner, str | Path):
            learner = load_run(learner, self.batch_norm)[1]
        elif device is not None or self.feature_norm != "none":
            learner = copy.deepcopy(learner)  # the caller's stays where it is
        if not isinstance(learner, Trained) or not isinstance(learner.source, ImageSource):
            raise InputError(
                f"a learner is a run folder, a loaded learner of images or an nn.Module, not {learner!r:.100}"
            )
        if self.size is not None or self.grey is not None:
            raise InputError("size and grey are for an encoder: a learner prepares pictures as its data set did")
        preparation = self.preparation or learner.source.preparation
        if rule is None:
            if self.feature_norm != "none":
                learner = with_feature_norm(learner, self.feature_norm, learner.source)
            return moved(learner, device), preparation
        if isinstance(learner, TrainedInitialisation):
            raise InputError(
                f"rule {rule!r} is for learners with an encoder; this one adapts its network, leave it out"
            )
        made = RULES[rule](learner.network.encoder, learner.network.batch_norm).eval()
        if self.feature_norm != "none":
            with_feature_norm(TrainedEmbedding(made, learner.source, rule), self.feature_norm, learner.source)
        return moved(made, device), preparation

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Images as the learner takes them: its device and its floating-point type, bytes in units of 255."""
        if isinstance(self._model, TrainedInitialisation):
            tensors = list(self._model.params.values())
        else:
            module = self._model.network if isinstance(self._model, Trained) else self._model
            tensors = list(module.parameters())
        like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like)
        return tensor / 255 if values.dtype == np.uint8 else tensor
