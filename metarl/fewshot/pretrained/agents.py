"""The transfer learners' heads on somebody else's frozen encoder: nothing is trained, so they are judged at once.

Such an encoder has seen other pictures than a data set's train classes, maybe such as its test classes: its figures are
not comparable with those of learners trained on the train classes alone.
"""

from __future__ import annotations

from typing import Any

from metarl.errors import UserError
from metarl.fewshot.classifier import RULES
from metarl.fewshot.datasets.image_source import check_images
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.pretrained.cache import FeatureCache
from metarl.fewshot.pretrained.loading import load_pretrained
from metarl.learning.brought import Agent


def frozen(rule: str, encoder: str, arch: str | None) -> Agent:
    """An agent that needs no training.

    Args:
        rule: how features become classes.
        encoder: which, see `load_pretrained`.
        arch: see there.

    Raises:
        UserError: there is no such rule.
    """
    if rule not in RULES:
        raise UserError(
            f"--encoder goes with an agent that has a rule for its features, {', '.join(RULES)}, not with {rule}"
        )

    def make(source: Any) -> TrainedEmbedding:
        check_images(source, "an encoder")
        network = RULES[rule](load_pretrained(encoder, arch, FeatureCache()), "running").eval()
        return TrainedEmbedding(network, source, f"{rule} on frozen features of {encoder}, trained elsewhere")

    return Agent(rule, "dataset", "a frozen encoder", None, make)
