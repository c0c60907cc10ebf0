"""Tasks drawn from images: nothing leaks, everything is keyed, one gather gives the right pixels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.sampling import choose
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.seeding import Key
from metarl.tasks import Tasks

SIZES = [20, 9, 30, 12, 20, 11, 25, 10, 20, 20, 14, 9, 20, 22, 20, 20, 16, 20]
GROUPS = "aaaaaabbbbbbcccccc"


def make_images() -> Images:
    """Every pixel of image i encodes i and its place: unique, and asymmetric under rotation."""
    count = sum(SIZES)
    pixels = np.zeros((count, 1, 4, 4), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count) // 256
    pixels[:, 0, 0, 1] = np.arange(count) % 256
    return Images(pixels, tuple(f"{g}/{i}" for i, g in enumerate(GROUPS)), tuple(SIZES), tuple(GROUPS))


IMAGES = make_images()


@dataclass(frozen=True, kw_only=True)
class Toy(ImageSource):
    name: ClassVar[str] = "toy"
    queries: int = 3

    def load(self) -> Images:
        return IMAGES

    def split_classes(self, images):
        return {"train": range(9), "validation": range(9, 12), "test": range(12, 18)}


VARIANTS = [
    Toy(),
    Toy(rotations=True),
    Toy(shots=4, unbalanced=True, rotations=True),
    Toy(ways=3, within_groups=True),
    Toy(ways=6, min_ways=2, shots=5, min_shots=1, rotations=True),
]


def owner(index):
    """The class of each image."""
    return np.searchsorted(IMAGES.starts, index, side="right") - 1


@pytest.mark.parametrize("source", VARIANTS, ids=repr)
def test_nothing_leaks_in_thousands_of_tasks(source):
    rng = Key(0)("leaks").numpy()
    seen = {}
    for split, ways in (("train", source.ways), ("test", min(source.ways, 6))):
        seen[split] = set()
        for _ in range(20):
            tasks = source.sample(100, rng, split)
            a = tasks.arrays
            ways = a["classes"].shape[1]
            assert all(len(set(row)) == ways for row in a["classes"].tolist())  # so no class meets its own rotation
            for part in ("support", "query"):
                labelled = np.take_along_axis(a["classes"], a[f"{part}_label"], 1)
                np.testing.assert_array_equal(owner(a[part]), labelled)
            together = np.concatenate([a["support"], a["query"]], 1)
            assert all(len(set(row)) == together.shape[1] for row in together.tolist())
            seen[split] |= set(a["classes"].ravel().tolist())
    assert seen == {"train": set(range(9)), "test": set(range(12, 18))}


def test_splits_that_share_a_class_are_refused():
    class Leaky(Toy):
        def split_classes(self, images):
            return {"train": [0, 1, 2, 3, 4, 5], "validation": [6], "test": [5, 7]}

    with pytest.raises(ValueError, match="two splits"):
        Leaky().sample(1, Key(0).numpy())


def test_classes_images_and_rotations_are_uniform():
    a = Toy(ways=2, queries=1, rotations=True).sample(60_000, Key(1).numpy()).arrays
    share = np.bincount(a["classes"].ravel(), minlength=9) / a["classes"].size
    np.testing.assert_allclose(share, 1 / 9, atol=0.004)
    np.testing.assert_allclose(np.bincount(a["rotation"].ravel()) / a["rotation"].size, 0.25, atol=0.005)
    of_class_1 = a["support"][owner(a["support"]) == 1] - IMAGES.starts[1]
    np.testing.assert_allclose(np.bincount(of_class_1, minlength=9) / len(of_class_1), 1 / 9, atol=0.012)
    pairs = a["classes"][:, 0] * 9 + a["classes"][:, 1]
    assert len(np.unique(pairs)) == 72  # every ordered pair of distinct classes


def test_unbalanced_support_keeps_its_total_and_never_empties_a_class():
    source = Toy(shots=4, unbalanced=True)
    labels = source.sample(2000, Key(2).numpy()).arrays["support_label"]
    counts = np.stack([(labels == way).sum(1) for way in range(5)], 1)
    assert labels.shape == (2000, 20)
    assert counts.min() == 1
    assert counts.max() == 6  # the smallest training class has 9 images, 3 are queries
    assert len(np.unique(np.sort(counts, 1), axis=0)) > 5
    np.testing.assert_allclose(counts.mean(0), 4, atol=0.1)


def test_variable_way_and_shot_cover_their_range():
    source = Toy(ways=5, min_ways=2, shots=3, min_shots=1)
    rng = Key(3).numpy()
    shapes = {
        (a["classes"].shape[1], a["support"].shape[1]) for a in (source.sample(2, rng).arrays for _ in range(300))
    }
    assert shapes == {(n, n * k) for n in range(2, 6) for k in range(1, 4)}
    assert source.fixed("test", 2).arrays["support"].shape == (2, 15)


def test_within_groups_draws_every_task_from_one_group():
    source = Toy(ways=3, within_groups=True)
    groups = np.array(list(GROUPS))[source.sample(500, Key(4).numpy()).arrays["classes"]]
    assert (groups == groups[:, :1]).all()
    assert set(groups.ravel()) == {"a", "b"}
    with pytest.raises(UserError, match="4 ways asked for, the validation split has 3 classes in one group"):
        Toy(ways=4, within_groups=True).sample(1, Key(4).numpy(), "validation")


def test_batch_gathers_the_images_and_turns_them():
    source = Toy(rotations=True, shots=2)
    tasks = source.sample(7, Key(5).numpy())
    a, batch = tasks.arrays, source.batch(tasks)
    assert batch.support_x.shape == (7, 10, 1, 4, 4)
    assert batch.query_x.shape == (7, 15, 1, 4, 4)
    assert batch.support_x.dtype == torch.float32
    assert batch.support_y.dtype == torch.int64
    for images, labels, part in (
        (batch.support_x, batch.support_y, "support"),
        (batch.query_x, batch.query_y, "query"),
    ):
        np.testing.assert_array_equal(labels.numpy(), a[f"{part}_label"])
        for t in range(7):
            for s in range(labels.shape[1]):
                turns = a["rotation"][t, labels[t, s]]
                expected = np.rot90(IMAGES.pixels[a[part][t, s]], turns, (1, 2)) / np.float32(255)
                np.testing.assert_array_equal(images[t, s].numpy(), expected)
    assert len(set(a["rotation"].ravel().tolist())) == 4


def test_tasks_are_plain_data_and_survive_json():
    source = VARIANTS[2]
    tasks = source.fixed("test", 5)
    again = Tasks.from_json(tasks.to_json())
    assert again == tasks
    assert torch.equal(source.batch(again).query_x, source.batch(tasks).query_x)


@pytest.mark.parametrize("source", VARIANTS, ids=repr)
def test_fixed_tasks_are_a_prefix_of_one_sequence(source):
    assert source.fixed("test", 3) == source.fixed("test", 8)[:3]
    assert source.fixed("test", 3) != source.fixed("train", 3)


@pytest.mark.parametrize("source", [VARIANTS[2], Sinusoid()], ids=lambda source: source.name)
def test_tasks_have_their_places(source):
    for tasks in (source.fixed("test", 3), source.sample(3, np.random.default_rng(0), "test")):
        assert [tasks.place(t) for t in range(3)] == [("test", 0), ("test", 1), ("test", 2)]


def test_fixed_tasks_are_frozen():
    assert VARIANTS[2].fixed("test", 5).sha256() == "93cd45a2682b75cc82bfe1dc190266e5b1c348bc7fab8d8e7b96709f00332bec"


def test_streams_depend_on_the_key_alone():
    first = Toy().sample(4, Key(1)("train", 3).numpy())
    Toy().sample(9, Key(1)("train", 4).numpy())
    assert Toy().sample(4, Key(1)("train", 3).numpy()) == first
    assert Toy().sample(4, Key(1)("train", 5).numpy()) != first


def test_tasks_of_other_data_are_refused():
    tasks = Toy().fixed("test", 2)
    other = Images(IMAGES.pixels, tuple(f"other/{i}" for i in range(18)), tuple(SIZES), tuple(GROUPS))

    class Other(Toy):
        def load(self):
            return other

    with pytest.raises(ValueError, match="other images"):
        Other().batch(tasks)


def test_options_rebuild_the_source_and_leave_the_folder_out(tmp_path):
    source = Toy(ways=3, rotations=True, data_root=tmp_path)
    assert "data_root" not in source.options()
    assert Toy(**source.options()) == source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways must be at least 2, got 1"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"ways": 3, "min_ways": 4}, "min_ways 4 exceeds ways"),
        ({"min_shots": 0}, "min_shots must be at least 1"),
    ],
)
def test_bad_options_say_what_is_allowed(options, message):
    with pytest.raises(UserError, match=message):
        Toy(**options)


def test_too_few_images_or_classes_say_so():
    with pytest.raises(
        UserError, match=r"7 shots and 3 queries need 10 images a class, 1 train classes have fewer \(a/1: 9\); lower"
    ):
        Toy(shots=7).sample(1, Key(0).numpy())
    with pytest.raises(
        UserError,
        match=r"10 ways asked for, the train split has 9 classes in all \(validation 3, test 6\): at most --ways 9",
    ):
        Toy(ways=10).sample(1, Key(0).numpy())
    with pytest.raises(UserError, match="no split 'ood'; it has train, validation, test"):
        Toy().sample(1, Key(0).numpy(), "ood")


def test_images_must_fit_their_classes():
    with pytest.raises(ValueError, match="do not fit"):
        Images(np.zeros((3, 1, 2, 2), np.uint8), ("a", "b"), (1, 1), ("g", "g"))
    with pytest.raises(ValueError, match="do not fit"):
        Images(np.zeros((2, 1, 2, 2), np.uint8), ("a", "a"), (1, 1), ("g", "g"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 2**32), st.data())
def test_choose_is_distinct_and_in_range(sizes, seed, data):
    k = data.draw(st.integers(0, min(sizes)))
    chosen = choose(np.random.default_rng(seed).random((len(sizes), k)), np.array(sizes))
    assert chosen.shape == (len(sizes), k)
    for row, size in zip(chosen.tolist(), sizes, strict=True):
        assert len(set(row)) == k
        assert all(0 <= value < size for value in row)


def test_choose_literals():
    # first place 2 of 4 [0 1 2 3] -> 2, the pool is [2 1 0 3]; then place 1 + 0 -> 1; then 2 + 1 -> 3
    assert choose(np.array([[0.5, 0.0, 0.5]]), np.array([4])).tolist() == [[2, 1, 3]]
    assert choose(np.array([[0.75, 0.99, 0.0, 0.0]]), np.array([4])).tolist() == [[3, 0, 2, 1]]
    with pytest.raises(ValueError, match="cannot choose 3"):
        choose(np.zeros((1, 3)), np.array([2]))
