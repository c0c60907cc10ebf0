"""What accuracy to expect from the pictures learned from alone, and when to call one unknown."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.evaluation.curve import load_curves
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.estimate import folds, of_run, wilson


def test_wilson_s_interval_by_hand():
    """8 of 10, z = 1.96: the textbook's .49 to .943."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_every_picture_is_held_out_once_but_those_alone():
    labels = np.array([0, 0, 1, 2, 2, 2, 1])
    held = folds(labels)
    assert sorted(np.concatenate(held).tolist()) == list(range(7))
    for out in held:
        left = np.delete(labels, out)
        assert set(left) == {0, 1, 2}
    assert [out.tolist() for out in folds(np.array([0, 1, 1]))] == [[1], [2]]
    assert folds(np.array([0, 1, 2])) == []


def test_an_estimate_by_hand():
    """On a line, 0 and 1 against 9 and 10, and one 8 of the first class: held out it is called the second, and the
    mean of it and of one of its fellows lies nearer to the other of these than to 9."""
    x = np.array([[0.0], [1.0], [8.0], [9.0], [10.0], [11.0]])
    found = FewShotClassifier().fit(x, ["a", "a", "a", "b", "b", "b"]).estimate()
    assert (found.accuracy, found.judged) == (5 / 6, 6)
    low, high = wilson(5, 6)
    assert (found.low, found.high) == pytest.approx((low, 1 - (1 - high) * 2 / 3))  # learned from 2 of 3 a class


def test_one_picture_a_class_says_nothing():
    found = FewShotClassifier().fit(np.array([[0.0], [1.0]]), [0, 1])
    assert found.estimate().accuracy is None
    assert (found.estimate().low, found.estimate().high) == (0, 1)
    with pytest.raises(UserError, match="two pictures of some class"):
        found.unknown()
    with pytest.raises(ValueError, match="share of known"):
        found.unknown(1.5)


def test_a_threshold_of_the_unknown():
    """Three tight clusters: what lies between them is called unknown, of a class left out as much."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = np.concatenate([centre + 0.3 * rng.standard_normal((20, 2)) for centre in centres])
    classifier = FewShotClassifier().fit(x, np.repeat([0, 1, 2], 20))
    found = classifier.unknown(0.1)
    assert found.known <= 0.1
    assert found.unknown is not None
    assert classifier.predict_proba(np.array([[2.0, 2.0]])).max() < found.threshold


def test_a_run_s_own_curve_of_as_many_ways_stands_in(tmp_path):
    """2 is not the 12 that ends in it, and tasks of other features or refinements are not the run's own."""
    [curve] = load_curves(Path(__file__).parents[3] / "results" / "glyphs" / "protonet-0.json")
    for ways, name, score in ((12, "curve-12-ways", 0.1), (5, "curve-bd-cspn", 0.2), (5, "curve", 0.7)):
        values = np.full_like(curve.per_task, score)
        protocol = curve.protocol.replace("5-way", f"{ways}-way")
        dataclasses.replace(curve, protocol=protocol, per_task=values).save(tmp_path / f"{name}.json")
    assert of_run(tmp_path, 2) is None
    assert of_run(tmp_path, 5).accuracy == pytest.approx(0.7)
    assert of_run(tmp_path, 12).accuracy == pytest.approx(0.1)


def test_what_was_held_out_is_judged_once_and_again_after_fit(monkeypatch):
    x, y = np.array([[0.0], [1.0], [9.0], [10.0]]), [0, 0, 1, 1]
    classifier = FewShotClassifier().fit(x, y)
    calls = []
    monkeypatch.setattr(FewShotClassifier, "_judged", lambda self, shown, asked: calls.append(1) or np.eye(2)[[0, 1]])
    classifier.estimate(), classifier.unknown()
    assert len(calls) == 2  # two folds; of two classes none is left out
    classifier.fit(x, y).estimate()
    assert len(calls) == 4
