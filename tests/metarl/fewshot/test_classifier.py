"""The classifier: scikit-learn's contract, every learner, every kind of picture, and `metarl predict` as typed."""

import contextlib
import copy
import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from metarl import cli
from metarl.errors import UserError
from metarl.fewshot import LEARNERS
from metarl.fewshot.classifier import RULES, FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.omniglot import Omniglot
from metarl.fewshot.datasets.pictures import Preparation
from metarl.fewshot.inputs import images
from metarl.fewshot.learners import protonet
from metarl.fewshot.learners.initialisation import TEST_STEPS
from metarl.fewshot.loading import load_run
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.seeding import Key

SHORT = ["--iterations", "1", "--width", "8"]
GRADIENT = ("maml", "fomaml", "anil", "meta-sgd", "reptile")


def metarl(*words):
    """Exit code, stdout, stderr of the command as typed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def refused(said):
    code, _, err = said
    assert code == 2, said
    assert err.startswith("metarl: ")
    assert err.count("\n") == 1
    return err


def train(name, out, *words):
    assert metarl("train", name, "--dataset", "glyphs", "--out", out, *SHORT, *words)[0] == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of every few-shot learner, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    for name in LEARNERS:
        few = ["--train-ways", "5"] if name in ("protonet", "matchingnet", "r2d2", "meta-baseline") else []
        train(name, folder / name, *(["--tasks", "2", "--strategy", "loop"] if name in GRADIENT else few))
    return folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A ProtoNet that knows letters."""
    out = tmp_path_factory.mktemp("taught") / "run"
    words = ["--iterations", "80", "--width", "32", "--train-ways", "10", "--halve-every", "30"]
    assert metarl("train", "protonet", "--dataset", "glyphs", "--out", out, *words)[0] == 0
    return out


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Pictures of 6 unseen letters as a user has them, ink dark on larger light paper: support folders, query files."""
    folder = tmp_path_factory.mktemp("letters")
    source = Glyphs()
    for i in range(6):
        letter = source.classes("test")[10 * i]
        start = source.images.starts[source.images.classes.index(letter)]
        for j, pixels in enumerate(source.images.pixels[start : start + 12]):
            name = letter.replace("/", "-")
            place = folder / ("support/" + name if j < 3 + i % 2 else "query")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - pixels[0]).resize((56, 56)).convert("RGB").save(place / f"{name}_{j}.png")
    return folder


def shown(folder):
    files = sorted(folder.glob("support/*/*.png"))
    return files, [file.parent.name for file in files]


def asked(folder):
    files = sorted(folder.glob("query/*.png"))
    return files, [file.name.rpartition("_")[0] for file in files]


# scikit-learn's contract. No check is expected to fail; scikit-learn itself skips those for the array API and pandas
# where these are not set up. They make flat tables of any width, which no run's encoder takes, so encoders that do
# stand in for one. `baseline` and `baseline++` are left out for time alone: they fit a head in every prediction.


@parametrize_with_checks(
    [FewShotClassifier(), FewShotClassifier(rule="logistic"), FewShotClassifier(nn.Flatten(), batch_norm="support")],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


def test_it_is_the_nearest_mean_on_raw_pixels():
    x = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [8.0, 8.0], [8.0, 10.0]])
    model = FewShotClassifier().fit(x, ["b", "b", "b", "a", "a"])  # means (4, 0) and (8, 9)
    assert model.classes_.tolist() == ["a", "b"]
    assert model.predict([[7.0, 8.0], [4.0, 1.0]]).tolist() == ["a", "b"]
    d = np.array([1 + 81, 9 + 0])  # squared distances of (7, 0)
    expected = np.exp(-d) / np.exp(-d).sum()
    np.testing.assert_allclose(model.predict_proba([[7.0, 0.0]])[0], expected, atol=1e-12)
    assert model.score([[7.0, 8.0], [4.0, 1.0]], ["a", "a"]) == 0.5


def test_grid_search_over_rules():
    rng = Key(0)("grid").numpy()
    x, y = np.concatenate([rng.normal(size=(20, 5)), rng.normal(3, 1, size=(20, 5))]), np.repeat([3, 7], 20)
    found = GridSearchCV(FewShotClassifier(), {"rule": ["centroid", "logistic"]}, cv=2).fit(x, y)
    assert found.best_score_ > 0.9
    assert found.predict(x[:1]).tolist() == [3]


# Learners


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_predicts_and_survives_copies(name, runs, letters):
    files, labels = shown(letters)
    query, _ = asked(letters)
    few = [i for i, label in enumerate(labels) if label in sorted(set(labels))[:4]]  # a head of 5 takes 4
    files, labels = [files[i] for i in few], [labels[i] for i in few]
    learner = load_run(runs / name)[1]
    model = FewShotClassifier(runs / name).fit(files, labels)
    found = model.predict_proba(query)
    assert found.shape == (len(query), 4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.std(0).max() > 1e-6
    assert (model.predict(query) == model.classes_[found.argmax(1)]).all()
    for other in (
        FewShotClassifier(learner).fit(files, labels),
        clone(FewShotClassifier(learner)).fit(files, labels),
        clone(model).fit(files, labels),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        np.testing.assert_array_equal(other.predict_proba(query), found)


@pytest.mark.parametrize("name", LEARNERS)
def test_more_ways_than_in_training(name, runs, letters):
    model = FewShotClassifier(str(runs / name))  # trained with 5 ways
    if name in GRADIENT:
        with pytest.raises(UserError, match="head tells 5 classes apart and was given 6"):
            model.fit(*shown(letters))
    else:
        assert model.fit(*shown(letters)).predict_proba(asked(letters)[0]).shape[1] == 6


def test_predictions_are_those_of_the_evaluation(runs):
    source = Glyphs()
    tasks = source.fixed("test", 3)
    for name in ("protonet", "maml"):
        learner = load_run(runs / name)[1]
        scores = learner.curve(tasks, Budget(steps=TEST_STEPS), 0).values[:, -1]
        for i, expected in enumerate(scores):
            support, query = (source.images.pixels[tasks.arrays[part][i], 0] for part in ("support", "query"))
            model = FewShotClassifier(learner).fit(255 - support, tasks.arrays["support_label"][i])
            assert model.score(255 - query, tasks.arrays["query_label"][i]) == pytest.approx(expected, abs=1e-6)


def test_a_run_needs_no_data_set(tmp_path, runs, monkeypatch):
    source = Omniglot(data_root=tmp_path / "nowhere")
    run = Run.create(tmp_path / "run", learner="protonet", config=protonet.Config(width=4), source=source, seed=0)
    run.checkpoint(0, {"params": protonet.make(run.config, source, 0).state_dict()})
    monkeypatch.setenv("METARL_OFFLINE", "1")
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "nowhere"))
    rng = Key(0)("x").numpy()
    model = FewShotClassifier(tmp_path / "run").fit(rng.random((4, 105, 105)), list("abab"))
    assert model.predict(rng.random((1, 105, 105)))[0] in "ab"


def test_support_statistics_make_predictions_independent(runs, letters):
    files, labels = shown(letters)
    few = [i for i, label in enumerate(labels) if label in sorted(set(labels))[:5]]
    files, labels = [files[i] for i in few], [labels[i] for i in few]
    query = asked(letters)[0]
    together = FewShotClassifier(runs / "maml").fit(files, labels)
    alone = FewShotClassifier(runs / "maml", batch_norm="support").fit(files, labels)
    assert (together.batch_norm_, alone.batch_norm_) == ("transductive", "support")
    np.testing.assert_allclose(alone.predict_proba(query)[:1], alone.predict_proba(query[:1]), atol=1e-5)
    assert np.abs(together.predict_proba(query)[:1] - together.predict_proba(query[:1])).max() > 1e-3
    with pytest.raises(UserError, match="batch norm running, which cannot be changed"):
        FewShotClassifier(runs / "protonet", batch_norm="support").fit(files, labels)


def test_another_rule_on_a_run_s_encoder(runs, letters):
    ours = FewShotClassifier(runs / "protonet", rule="logistic").fit(*shown(letters)).predict_proba(asked(letters)[0])
    own = FewShotClassifier(runs / "protonet").fit(*shown(letters)).predict_proba(asked(letters)[0])
    assert np.abs(ours - own).max() > 0.01
    with pytest.raises(ValueError, match="this one adapts its network"):
        FewShotClassifier(runs / "maml", rule="logistic").fit(*shown(letters))
    with pytest.raises(ValueError, match="no rule 'nearest'; choose from centroid, logistic, baseline"):
        FewShotClassifier(rule="nearest").fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize("rule", RULES)
def test_any_module_is_an_encoder_and_is_left_alone(rule):
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten())  # in training mode
    before = copy.deepcopy(encoder.state_dict())
    rng = Key(0)("x").numpy()
    x, y = rng.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8), np.repeat(["x", "y"], 6)
    x[6:, :, :, 0] //= 4
    model = FewShotClassifier(encoder, rule=rule).fit(x, y)
    assert model.score(x, y) == 1
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


# Pictures


def test_all_kinds_of_pictures_are_one(runs, letters):
    files, labels = shown(letters)
    query = asked(letters)[0][:5]
    arrays = np.stack([np.asarray(Image.open(file)) for file in query])
    model = FewShotClassifier(runs / "protonet").fit(files, labels)
    expected = model.predict_proba(query)
    for same in (
        [str(file) for file in query],
        np.array([str(file) for file in query]),
        [Image.open(file) for file in query],
        arrays,
        arrays[..., 0],
        arrays / 255,
        (arrays[..., 0] / 255).astype(np.float32),
        list(arrays),
    ):
        np.testing.assert_array_equal(model.predict_proba(same), expected)
    small = [Image.open(file).convert("L").resize((28, 28)) for file in files]
    flat = np.stack([np.asarray(each).ravel() for each in small])
    by_row = FewShotClassifier(runs / "protonet").fit(flat, labels)
    assert by_row.n_features_in_ == 784
    np.testing.assert_array_equal(
        by_row.predict_proba(flat), FewShotClassifier(runs / "protonet").fit(small, labels).predict_proba(small)
    )


def test_pictures_are_prepared_as_the_data_set_prepares_its_own():
    drawing = np.full((105, 105), 255, np.uint8)
    drawing[30:60, 46:58] = 0
    prepared = images(drawing[None], Omniglot().preparation)
    shrunk = np.asarray(Image.fromarray(drawing).resize((28, 28), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(prepared, 255 - shrunk[None, None])
    assert prepared[0, 0, 10, 13] > 200  # ink
    assert prepared[0, 0, 0, 0] == 0
    assert images(drawing[None], None).tolist() == drawing[None, None].tolist()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((2, 8, 8), 2.0), "pictures are uint8, or in \\[0, 1\\]; these go from 2 to 2"),
        (np.zeros((2, 8, 8, 5)), "1 or 3 channels, on the last axis; these are \\(8, 8, 5\\)"),
        (np.zeros((2, 100)), "flat pictures for this learner have 28 x 28 x 1 numbers, not 100"),
        (np.full((2, 8, 8), np.nan), "NaN"),
        (["missing.png", "missing.png"], "2 of 2 pictures: missing.png cannot be read .*replace or remove them"),
        (["text.png", "text.png"], "2 of 2 pictures: text.png cannot be read .*replace or remove them"),
        ([Image.new("L", (8, 8)), 3], "picture 1 is a int"),
        ([], "got 1D array"),
    ],
)
def test_bad_pictures(x, message, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not a picture")
    with pytest.raises((UserError, ValueError), match=message):
        FewShotClassifier(runs / "protonet").fit(x, [0, 1][: len(x)])


def test_pictures_of_other_sizes():
    mixed = [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 9), "white")]
    with pytest.raises(ValueError, match=r"different shapes, \(3, 8, 8\) and \(3, 9, 9\): give size="):
        FewShotClassifier().fit(mixed, [0, 1])
    model = FewShotClassifier(preparation=Preparation("L", (4, 4))).fit(mixed, [0, 1])
    assert model.predict([Image.new("L", (30, 20), 250)]).tolist() == [1]
    with pytest.raises(ValueError, match=r"images are \(1, 5, 5\), those learned from are \(1, 4, 4\)"):
        FewShotClassifier().fit(np.eye(4)[[[0, 1, 2, 3], [1, 0, 2, 3]]], [0, 1]).predict(np.zeros((1, 5, 5)))


def test_bad_labels_and_learners(runs, tmp_path):
    x = np.zeros((3, 28, 28))
    with pytest.raises(ValueError, match="1 class"):
        FewShotClassifier(runs / "protonet").fit(x, [1, 1, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FewShotClassifier(runs / "protonet").fit(x, [0, 1])
    with pytest.raises(ValueError, match=r"nn\.Module, not 3"):
        FewShotClassifier(3).fit(x, [0, 1, 1])
    with pytest.raises(UserError, match="holds no run"):
        FewShotClassifier(tmp_path).fit(x, [0, 1, 1])


# The command


def test_predicting_unseen_letters_from_png_files(taught, letters, tmp_path):
    query, truth = asked(letters)
    out = tmp_path / "found.json"
    code, said, err = metarl("predict", taught, "--support", letters / "support", "--query", *query, "--json", out)
    assert code == 0, err
    lines = said.splitlines()
    found = dict(line.split()[:2] for line in lines[: len(query)])
    right = np.mean([found[str(file)] == label for file, label in zip(query, truth, strict=True)])
    assert right > 0.75, right
    assert lines[len(query)] == ("protonet trained on glyphs, 21 support pictures of 6 classes; batch norm: running")
    document = json.loads(out.read_text())
    assert sum(document["support"].values()) == 21
    for row, line in zip(document["predictions"], lines, strict=False):
        best = max(row["probabilities"], key=row["probabilities"].get)
        assert line.split() == [row["file"], row["class"], f"{row['probabilities'][best]:.3f}"]
        assert row["class"] == best
        assert sum(row["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("name", LEARNERS)
def test_predict_serves_every_learner(name, runs, letters, tmp_path):
    support = sorted((letters / "support").iterdir())[:5]
    for folder in support:
        (tmp_path / folder.name).symlink_to(folder)
    code, said, err = metarl("predict", runs / name, "--support", tmp_path, "--query", *asked(letters)[0][:3])
    assert code == 0, err
    assert f"{name} trained on glyphs" in said
    mode = "transductive; a prediction depends on the other pictures given" if name in GRADIENT else "running"
    assert said.strip().endswith(f"batch norm: {mode}")


def test_predict_with_the_statistics_of_the_support_set(runs, letters, tmp_path):
    for folder in sorted((letters / "support").iterdir())[:5]:
        (tmp_path / folder.name).symlink_to(folder)
    words = [
        "predict",
        runs / "maml",
        "--support",
        tmp_path,
        "--query",
        asked(letters)[0][0],
        "--batch-norm",
        "support",
    ]
    code, said, err = metarl(*words)
    assert code == 0, err
    assert said.strip().endswith("batch norm: support")


def test_predict_refuses_in_one_line(runs, letters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    support, query = letters / "support", asked(letters)[0][0]
    run = runs / "protonet"
    assert "RUN comes first" in refused(metarl("predict", "--support", support, "--query", query))
    assert "--support" in refused(metarl("predict", run, "--query", query))
    assert "--query" in refused(metarl("predict", run, "--support", support))
    assert "--query" in refused(metarl("predict", run, "--support", support, "--query"))
    assert "there is no folder no" in refused(metarl("predict", run, "--support", "no", "--query", query))
    assert "there is no picture no.png" in refused(metarl("predict", run, "--support", support, "--query", "no.png"))
    assert "no run" in refused(metarl("predict", "nowhere", "--support", support, "--query", query))
    assert "head tells 5 classes apart and was given 6" in refused(
        metarl("predict", runs / "maml", "--support", support, "--query", query)
    )
    mine = tmp_path / "mine"
    (mine / "a").mkdir(parents=True)
    said = metarl("predict", run, "--support", mine, "--query", query)
    assert "mine has folders without a picture: a; put some in" in refused(said)
    Image.linear_gradient("L").save(mine / "a/1.png")
    said = metarl("predict", run, "--support", mine, "--query", query)
    assert "of 1 classes; at least 2 are needed" in refused(said)
    (mine / "b").mkdir()
    (mine / "b/1.png").write_bytes(b"no picture")
    assert "b/1.png cannot be read" in refused(metarl("predict", run, "--support", mine, "--query", query))
    Image.linear_gradient("L").save(mine / "b/1.png")
    assert metarl("predict", run, "--support", mine, "--query", query)[0] == 0
    (tmp_path / "q.png").write_bytes(b"no picture")
    assert "q.png cannot be read" in refused(metarl("predict", run, "--support", mine, "--query", "q.png"))
    words = ["predict", run, "--support", mine, "--query", query, "--json", "no/x.json"]
    assert "there is no folder no" in refused(metarl(*words))
    metarl("train", "maml", "--dataset", "sinusoid", "--out", "sine", "--iterations", "1")
    assert "has no classes" in refused(metarl("predict", "sine", "--support", mine, "--query", query))
    small = ["--iterations", "1", "--tasks", "2", "--episodes", "2"]
    metarl("train", "maml-trpo", "--family", "metarl/Navigation2D-v0", "--out", "nav", *small)
    assert "is a run of maml-trpo, which classifies no images" in refused(
        metarl("predict", "nav", "--support", mine, "--query", query)
    )
    broken = json.loads((run / "config.json").read_text())
    broken["source"]["options"]["colour"] = 3
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text(json.dumps(broken))
    assert "cannot make glyphs with" in refused(metarl("predict", "broken", "--support", mine, "--query", query))


def test_a_copied_source_forgets_its_images():
    source = Glyphs()
    assert len(source.images.pixels) > 1000
    assert len(pickle.dumps(source)) < 1000
    assert pickle.loads(pickle.dumps(source)) == dataclasses.replace(source) == source
