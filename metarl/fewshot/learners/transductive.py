"""A trained embedding that sees all query images of a task at once: an explicit choice, said beside its numbers."""

from __future__ import annotations

from dataclasses import replace

from metarl.errors import UserError
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.networks.prototype_rectification import Rectified


def with_rectification(learner: object) -> TrainedEmbedding:
    """A learner whose class means the query images correct (BD-CSPN); features are normalised before, if at all.

    Raises:
        UserError: it compares no features.
    """
    if not isinstance(learner, TrainedEmbedding):
        raise UserError(
            "--transductive bd-cspn is for learners that compare features (protonet, r2d2, meta-baseline, centroid, "
            "...); this one adapts its network: leave it out"
        )
    rule = f"{learner.rule}, transductive: BD-CSPN, sees all query images of a task"
    return replace(learner, network=Rectified(learner.network).eval(), rule=rule)
