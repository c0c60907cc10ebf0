"""The data sets: published splits by hash, contents accepted and refused, and 1,000 damaged files."""

import csv
import gzip
import hashlib
import io
import os
import tarfile
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.datasets import DATASETS, cifar_fs, downloads, folder, glyphs, make_dataset, mini_imagenet, omniglot
from metarl.fewshot.datasets.cifar_fs import CifarFS
from metarl.fewshot.datasets.folder import Folder
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.mini_imagenet import MiniImageNet
from metarl.fewshot.datasets.omniglot import Omniglot
from metarl.fewshot.datasets.pictures import Preparation
from metarl.fewshot.datasets.reading import DataWarning
from metarl.seeding import Key

DATA = Path(os.environ.get("METARL_DATA", ""))
needs_omniglot = pytest.mark.skipif(
    not (DATA / "omniglot/images_background.zip").is_file(), reason="METARL_DATA has no omniglot"
)
needs_cifar = pytest.mark.skipif(not (DATA / cifar_fs.ZIPPED).is_file(), reason="METARL_DATA has no cifar_fs")
needs_lists = pytest.mark.skipif(
    not (DATA / "mini_imagenet/train.csv").is_file(), reason="METARL_DATA has no mini_imagenet lists"
)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METARL_OFFLINE", "1")
    return tmp_path / "cache" / "pixels"


def png(pixels, fmt="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt)
    return out.getvalue()


def noise(*path, shape=(12, 12, 3)):
    return Key(0)("pictures", *path).numpy().integers(0, 256, shape, np.uint8)


def assert_never_meet(source, tasks=1000):
    """Over `tasks` tasks a split: classes stay in their split, support and query images never meet."""
    seen = {}
    for split in source.splits:
        a = source.sample(tasks, Key(0)("meet", split).numpy(), split).arrays
        seen[split] = set(np.unique(a["classes"]).tolist())
        images = np.concatenate([a["support"], a["query"]], 1)
        assert (np.diff(np.sort(images, 1), axis=1) > 0).all()
        assert (np.diff(np.sort(a["classes"], 1), axis=1) > 0).all()
        names = {source.images.classes[i] for i in seen[split]}
        assert names <= set(source.classes(split))
    sets = list(seen.values())
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_every_name_in_the_registry_makes_its_data_set():
    for name in DATASETS:
        assert make_dataset(name).name == name
    with pytest.raises(UserError, match="no data set 'mnist'; choose from sinusoid, glyphs"):
        make_dataset("mnist")


# ---- glyphs

GLYPH_HASHES = {
    "train": "806a770ed37933de4a7415eff176a2d43b3dc0ccecb56ceb922ef988e3fa3697",
    "validation": "f51630ec0e53a9d43afe92871619030a232da1b5a22eb3b5f3d5d9822ec08d76",
    "test": "da134728e661dd1540b991dacd7c6882499e9aa511f12dde4e8ca27459e4181f",
}


def test_glyph_splits_are_whole_scripts_by_hash():
    source = Glyphs()
    assert {split: len(source.classes(split)) for split in source.splits} == {
        "train": 1133,
        "validation": 113,
        "test": 114,
    }
    assert {split: source.split_sha256(split) for split in source.splits} == GLYPH_HASHES
    scripts = {split: {name.split("/")[0] for name in source.classes(split)} for split in source.splits}
    assert scripts == {
        "train": {"Latin", "Greek", "Common"},
        "validation": {"Cyrillic"},
        "test": {"Georgian", "Armenian"},
    }


def test_glyph_pictures_of_a_class_are_twelve_different_faces_of_one_letter():
    images = Glyphs().images
    assert images.pixels.shape == (1360 * 12, 1, 28, 28)
    assert set(images.counts) == {12}
    assert len(glyphs.FACES) == len(set(glyphs.FACES)) == 12
    ink = images.pixels.reshape(1360, 12, -1).astype(int)
    assert (ink.max(2) > 127).all()  # no empty picture
    assert (ink[:, :, :28].max(2) <= 127).mean() > 0.999  # nothing is cut off at the top
    different = [(np.abs(ink[:, i] - ink[:, j]).sum(1) > 0).all() for i in range(12) for j in range(i)]
    assert all(different)  # so support and query images, drawn without replacement, differ in face


def test_no_two_glyph_classes_share_an_outline():
    letters = glyphs.letters()
    assert all(unicodedata.category(letter)[0] == "L" for letter in letters)
    assert "A" in letters
    assert "\u0391" not in letters  # Greek capital alpha
    assert "\u0410" not in letters  # Cyrillic capital a
    for face in (glyphs.FACES[0], glyphs.FACES[10]):
        font = glyphs.TTFont(glyphs.face_file(face))
        names, outlines = font.getBestCmap(), font.getGlyphSet()
        drawn = [glyphs.outline(outlines, names[ord(letter)]) for letter in letters]
        assert len(set(drawn)) == len(letters)


def test_merge_is_transitive_and_keeps_the_least():
    marks = [("a", 5), ("a", 3), ("b", 5), ("b", 9), ("c", 7), ("d", 8)]
    assert glyphs.merge([3, 5, 7, 8, 9], marks) == {3: 3, 5: 3, 9: 3, 7: 7, 8: 8}


def test_glyph_jitter_moves_but_keeps_the_letter():
    font = glyphs.ImageFont.truetype(str(glyphs.face_file("DejaVuSans")), glyphs.FONT_PIXELS)
    still = glyphs.picture("L", font, np.zeros(6)).astype(int)
    right = glyphs.picture("L", font, np.array([0, 0, 0, 0, 1.0, 0])).astype(int)
    down = glyphs.picture("L", font, np.array([0, 0, 0, 0, 0, 1.0])).astype(int)
    wide = glyphs.picture("L", font, np.array([0, 0, 1.0, 0, 0, 0])).astype(int)
    turned = glyphs.picture("L", font, np.array([1.0, 0, 0, 0, 0, 0])).astype(int)

    def centre(picture):
        rows, columns = np.indices(picture.shape)
        return np.array([(rows * picture).sum(), (columns * picture).sum()]) / picture.sum()

    np.testing.assert_allclose(centre(right) - centre(still), [0, glyphs.SHIFT], atol=0.15)
    np.testing.assert_allclose(centre(down) - centre(still), [glyphs.SHIFT, 0], atol=0.15)
    np.testing.assert_allclose(wide.sum() / still.sum(), 1 + glyphs.SCALE, atol=0.02)
    np.testing.assert_allclose(turned.sum() / still.sum(), 1, atol=0.02)
    assert np.abs(turned - still).sum() > 1000


def test_glyph_tasks_never_leak():
    assert_never_meet(Glyphs(shots=5, queries=7))
    assert_never_meet(Glyphs(rotations=True, within_groups=True))
    with pytest.raises(UserError, match="12"):
        Glyphs(shots=6, queries=7).sample(1, Key(0).numpy())


# ---- omniglot

OMNIGLOT_HASHES = {
    ("vinyals", "train"): (1028, "c350ea5778649d32e0ac6ec889c2307081c3925cf690fc8933ebdf3d800b69b2"),
    ("vinyals", "validation"): (172, "d3f56052fbd17195c86774f0ac0189eb7e3e9a0656d5ff71b234479d512fecb2"),
    ("vinyals", "test"): (423, "bbbdc01c73fd2d347b6d10079314fb3df275938be403cbe915c1c09a38b1ba37"),
    ("maml", "train"): (1100, "2ab01a38e980c406ddd6c191fea09d24489723c3cd5395fadae9d8e6ec830ecc"),
    ("maml", "validation"): (100, "dbce2bc913aaa3ffd1358cbea75ab0a2b9648cb84c57645bedae47349bd61b80"),
    ("maml", "test"): (423, "3042c623f0c8259b087ba10c832c0027e021896b77580e1e4c01dce94ef6b04b"),
    ("lake", "train"): (964, "90912b225af0db7fd482aace64619493b5dff1e59ac7dfa843e13d9da321416c"),
    ("lake", "test"): (659, "74ef7f7b66c3873a2127f490445c5f471c25e0490318b7613c9dda3e8cc5cf3a"),
}


@needs_omniglot
def test_omniglot_splits_by_hash():
    found = {}
    for preset in Omniglot.presets:
        source = Omniglot(preset=preset)
        for split in source.splits:
            found[preset, split] = (len(source.classes(split)), source.split_sha256(split))
    assert found == OMNIGLOT_HASHES


@needs_omniglot
def test_omniglot_vinyals_lists_are_the_published_ones():
    source = Omniglot(preset="vinyals")
    validation = {name.split("/")[0] for name in source.classes("validation")}
    assert validation == {"Hebrew", "Mkhedruli_(Georgian)", "Armenian", "Early_Aramaic", "Bengali"}
    gurmukhi = sorted(name for name in source.classes("test") if name.startswith("Gurmukhi"))
    assert gurmukhi == [f"Gurmukhi/character{i}" for i in (42, 43, 44, 45)]


@needs_omniglot
@pytest.mark.parametrize(("preset", "shared"), [("vinyals", {"Gurmukhi": (41, 4)}), ("maml", None), ("lake", {})])
def test_alphabets_that_train_and_test_are_those_the_module_names(preset, shared):
    """Characters never meet, alphabets do: Gurmukhi in Vinyals' lists, all in Finn's, none in Lake's."""
    source = Omniglot(preset=preset)
    train, test = (Counter(name.split("/")[0] for name in source.classes(split)) for split in ("train", "test"))
    both = {alphabet: (train[alphabet], test[alphabet]) for alphabet in train.keys() & test.keys()}
    assert both == shared if shared is not None else len(both) == 50
    if preset == "vinyals":
        assert not train.keys() & {name.split("/")[0] for name in source.classes("validation")}


@needs_omniglot
def test_omniglot_pictures_are_ink_on_paper_and_small():
    images = Omniglot().images
    assert images.pixels.shape == (32460, 1, 28, 28)
    assert images.pixels.nbytes <= 150e6
    assert 0.05 < images.pixels.mean() / 255 < 0.12  # ink is 1 and rare
    assert images.classes[0] == "Alphabet_of_the_Magi/character01"
    archive = zipfile.ZipFile(DATA / "omniglot/images_background.zip")
    with Image.open(archive.open("images_background/Alphabet_of_the_Magi/character01/0709_03.png")) as picture:
        expected = 255 - np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(images.pixels[2, 0], expected)


@needs_omniglot
@pytest.mark.parametrize("preset", Omniglot.presets)
def test_omniglot_tasks_never_leak(preset):
    assert_never_meet(Omniglot(preset=preset, shots=5), 2000)
    assert_never_meet(Omniglot(preset=preset, ways=4, within_groups=True, shots=4, queries=4, unbalanced=True))


@needs_omniglot
def test_omniglot_fixed_tasks_are_frozen():
    assert Omniglot().fixed("test", 20).sha256() == "e2579818280ef0d756e00ad7201245bf3e5dd5635421a1e143d5188dc04c26ba"


def test_omniglot_refuses_an_unknown_preset():
    with pytest.raises(UserError, match="no preset 'random'; choose from vinyals, maml, lake"):
        Omniglot(preset="random")


def small_omniglot(root, monkeypatch, drawings=20):
    """Two archives of two characters each, made valid by their own hashes."""
    monkeypatch.setattr(omniglot, "DRAWINGS", drawings)
    for name, alphabet in (("background", "Latin"), ("evaluation", "Angelic")):
        digest = hashlib.sha256()
        path = root / f"omniglot/images_{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for character in (1, 2):
                for drawing in range(drawings):
                    member = f"images_{name}/{alphabet}/character{character:02d}/{character:04d}_{drawing + 1:02d}.png"
                    bits = noise(name, character, drawing, shape=(105, 105)) > 200
                    archive.writestr(member, png(bits))
                    digest.update(member.encode() + b"\0" + np.packbits(bits).tobytes())
        part = omniglot.PARTS[name]
        small = omniglot.Part(part.remote, 2, digest.hexdigest())
        monkeypatch.setitem(omniglot.PARTS, name, small)


def test_omniglot_is_accepted_by_content(tmp_path, own_cache, monkeypatch):
    small_omniglot(tmp_path, monkeypatch)
    images = omniglot.read.__wrapped__(tmp_path)
    assert images.classes == ("Latin/character01", "Latin/character02", "Angelic/character01", "Angelic/character02")
    paper = Image.fromarray((noise("background", 1, 2, shape=(105, 105)) > 200).astype(np.uint8) * 255)
    np.testing.assert_array_equal(
        images.pixels[2, 0], 255 - np.asarray(paper.resize((28, 28), Image.Resampling.LANCZOS))
    )
    source = tmp_path / "omniglot/images_background.zip"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_STORED) as new:
        for name in reversed(old.namelist()):
            new.writestr(name, old.read(name))
        new.writestr("images_background/.DS_Store", b"")
    (tmp_path / "again.zip").replace(source)
    again = omniglot.read.__wrapped__(tmp_path)  # other bytes, same pictures
    np.testing.assert_array_equal(again.pixels, images.pixels)
    assert len(list(own_cache.iterdir())) == 3


def test_omniglot_with_other_pictures_is_refused(tmp_path, own_cache, monkeypatch):
    small_omniglot(tmp_path, monkeypatch)
    part = omniglot.PARTS["evaluation"]
    monkeypatch.setitem(omniglot.PARTS, "evaluation", omniglot.Part(part.remote, 2, "0" * 64))
    with pytest.raises(UserError, match=r"pictures in .*images_evaluation\.zip are not Omniglot's"):
        omniglot.read.__wrapped__(tmp_path)
    monkeypatch.setitem(omniglot.PARTS, "background", omniglot.Part(omniglot.PARTS["background"].remote, 964, ""))
    with pytest.raises(UserError, match="holds 40 drawings of 2 characters; Omniglot's has 20 of each of 964"):
        omniglot.read.__wrapped__(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Omniglot, "omniglot/images_background.zip and"),
        (CifarFS, "cifar_fs/cifar_fs.zip"),
        (MiniImageNet, "your own ImageNet pictures"),
        (Folder, "DIR/CLASS"),
    ],
)
def test_missing_data_tells_the_layout(tmp_path, own_cache, source, expected):
    with pytest.raises(UserError, match=f"expected: .*{expected}"):
        source(data_root=tmp_path / "nowhere").sample(1, Key(0).numpy())
    assert not (tmp_path / "nowhere").exists()


# ---- cifar-fs


@needs_cifar
def test_cifar_fs_splits_are_the_published_lists():
    archive = zipfile.ZipFile(DATA / cifar_fs.ZIPPED)
    source = CifarFS()
    for split, name, size in (("train", "train", 64), ("validation", "val", 16), ("test", "test", 20)):
        published = archive.read(f"cifar100/splits/bertinetto/{name}.txt").decode().split()
        assert set(source.classes(split)) == set(published)
        assert len(source.classes(split)) == size
    assert source.image_shape == (3, 32, 32)
    assert_never_meet(CifarFS(shots=5, rotations=True))


@needs_cifar
def test_cifar_fs_pictures_are_those_of_their_class():
    images = CifarFS().images
    archive = zipfile.ZipFile(DATA / cifar_fs.ZIPPED)
    names = [name for name in archive.namelist() if name.startswith("cifar100/data/whale/")]
    drawn = {np.asarray(Image.open(archive.open(n)).convert("RGB")).transpose(2, 0, 1).tobytes() for n in names}
    start = int(images.starts[images.classes.index("whale")])
    assert {images.pixels[i].tobytes() for i in range(start, start + 600)} == drawn


def small_cifar(root, monkeypatch, per_class=3):
    """The same pictures as the authors' zip and as CIFAR-100's binary archive."""
    monkeypatch.setattr(cifar_fs, "PER_CLASS", per_class)
    monkeypatch.setattr(cifar_fs, "SHAPE", (100 * per_class, 3, 32, 32))
    (root / "zipped/cifar_fs").mkdir(parents=True)
    (root / "binary/cifar_fs").mkdir(parents=True)
    records, codes = {"train.bin": b"", "test.bin": b""}, cifar_fs.CLASSES[::-1]
    with zipfile.ZipFile(root / "zipped" / cifar_fs.ZIPPED, "w") as archive:
        for name in cifar_fs.CLASSES:
            for i in range(per_class):
                pixels = noise(name, i, shape=(32, 32, 3))
                archive.writestr(f"cifar100/data/{name}/{name}_s_{i:06d}.png", png(pixels))
                file = "test.bin" if i == 0 else "train.bin"
                records[file] += bytes([0, codes.index(name)]) + pixels.transpose(2, 0, 1).tobytes()
    members = {**records, "fine_label_names.txt": "\n".join(codes).encode()}
    with tarfile.open(root / "binary" / cifar_fs.BINARY.path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_both_cifar_archives_give_one_data_set(tmp_path, own_cache, monkeypatch):
    small_cifar(tmp_path, monkeypatch)
    zipped = cifar_fs.read.__wrapped__(tmp_path / "zipped")
    binary = cifar_fs.read.__wrapped__(tmp_path / "binary")
    np.testing.assert_array_equal(zipped.pixels, binary.pixels)
    assert zipped.fingerprint == binary.fingerprint
    fish = noise("aquarium_fish", 1, shape=(32, 32, 3)).transpose(2, 0, 1)
    assert any((zipped.pixels[i] == fish).all() for i in range(3, 6))


# ---- mini-imagenet


def small_mini(root, monkeypatch, zipped=False):
    """Two classes a split, three pictures each, of several sizes and formats."""
    monkeypatch.setattr(mini_imagenet, "PER_CLASS", 3)
    home = root / "mini_imagenet"
    (home / "images").mkdir(parents=True)
    for number, (split, file) in enumerate(mini_imagenet.FILES.items()):
        labels = [f"n{number}{c}" for c in range(2)]
        rows = [(f"{label}{i}.jpg", label) for label in labels for i in range(3)]
        with (home / file).open("w", newline="") as out:
            csv.writer(out).writerows([("filename", "label"), *rows])
        published = hashlib.sha256("\n".join(labels).encode()).hexdigest()
        monkeypatch.setitem(mini_imagenet.PUBLISHED, split, published)
        for name, _ in rows:
            (home / "images" / name).write_bytes(png(noise(name, shape=(50 + number, 60, 3)), "JPEG"))
    if zipped:
        with zipfile.ZipFile(home / "images.zip", "w") as archive:
            for path in (home / "images").iterdir():
                archive.write(path, f"images/{path.name}")
                path.unlink()
        (home / "images").rmdir()


@pytest.mark.parametrize("zipped", [False, True])
def test_mini_imagenet_is_decoded_once_into_a_mapped_cache(tmp_path, own_cache, monkeypatch, zipped):
    small_mini(tmp_path, monkeypatch, zipped)
    images, lists = mini_imagenet.read.__wrapped__(tmp_path)
    assert lists == {"train": ("n00", "n01"), "validation": ("n10", "n11"), "test": ("n20", "n21")}
    assert images.pixels.shape == (18, 3, 84, 84)
    assert images.pixels.dtype == np.uint8
    assert isinstance(images.pixels.base, np.memmap)
    (file,) = own_cache.iterdir()
    changed = file.stat().st_mtime_ns
    source = png(noise("n102.jpg", shape=(51, 60, 3)), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(source)).convert("RGB"))
    planes = [
        np.asarray(Image.fromarray(expected[..., c]).resize((84, 84), Image.Resampling.LANCZOS)) for c in range(3)
    ]
    np.testing.assert_array_equal(images.pixels[8], np.stack(planes))
    again, _ = mini_imagenet.read.__wrapped__(tmp_path)
    np.testing.assert_array_equal(again.pixels, images.pixels)
    assert file.stat().st_mtime_ns == changed
    assert_never_meet(MiniImageNet(ways=2, shots=1, queries=2, data_root=tmp_path), 50)


@needs_lists
def test_mini_imagenet_lists_are_the_published_ones():
    sizes = {"train": 64, "validation": 16, "test": 20}
    for split, file in mini_imagenet.FILES.items():
        members = mini_imagenet.read_list(DATA / "mini_imagenet" / file, split)
        assert len(members) == sizes[split]
        assert {len(names) for names in members.values()} == {600}
    with pytest.raises(UserError, match="is not the published train list: it has 9600 pictures of 16 classes"):
        mini_imagenet.read_list(DATA / "mini_imagenet/val.csv", "train")


def test_mini_imagenet_says_which_picture_is_missing(tmp_path, own_cache, monkeypatch):
    small_mini(tmp_path, monkeypatch)
    (tmp_path / "mini_imagenet/images/n112.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 1 pictures, the first n112\.jpg; expected:"):
        mini_imagenet.read.__wrapped__(tmp_path)


# ---- folder


def small_folder(root, splits=("",), classes=5, pictures=4):
    for split in splits:
        for c in range(classes):
            home = root / split / f"{split}class{c}"
            home.mkdir(parents=True)
            for i in range(pictures + c):
                (home / f"{i}.png").write_bytes(png(noise(split, c, i)))
    (root / "notes.txt").write_text("not a picture")


def test_folder_splits_classes_by_their_names(tmp_path, own_cache):
    small_folder(tmp_path, classes=25)
    source = Folder(data_root=tmp_path, size=12, queries=1)
    with pytest.warns(DataWarning, match=r"1 passed over as no pictures \(notes.txt\)"):
        _ = source.images
    splits = {split: source.classes(split) for split in source.splits}
    for split, low, high in (("test", 0, 0.2), ("validation", 0.2, 0.36), ("train", 0.36, 1)):
        assert splits[split] == tuple(sorted(f"class{c}" for c in range(25) if low <= folder.place(f"class{c}") < high))
    assert source.image_shape == (3, 12, 12)
    assert_never_meet(Folder(data_root=tmp_path, size=12, ways=4, shots=2, queries=2))
    where = int(source.images.starts[source.images.classes.index("class3")])
    np.testing.assert_array_equal(source.images.pixels[where + 2], noise("", 3, 2).transpose(2, 0, 1))
    assert Folder(data_root=tmp_path, size=12, grey=True).image_shape == (1, 12, 12)


def test_the_place_of_a_name_is_frozen():
    assert folder.place("cat") == pytest.approx(0.4675211634764018, abs=1e-12)
    assert folder.place("caf\u00e9") == folder.place("cafe\u0301")


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=60), st.text(min_size=1, max_size=8))
def test_a_class_stays_in_its_split_whatever_becomes_of_the_others(names, another):
    """And few classes too make tasks: training and test have at least two, of four or more."""
    names = sorted(names)
    splits = {split: {names[i] for i in ids} for split, ids in folder.split_by_name(names).items()}
    assert sorted(n for split in splits.values() for n in split) == names
    assert len(splits["train"]) >= 2
    if len(names) >= 4:
        assert len(splits["test"]) >= 2
    places = [folder.place(name) for name in names]
    if sum(p < 0.2 for p in places) < 2 or sum(p >= 0.36 for p in places) < 2:
        return
    more = sorted({*names, another})
    again = {split: {more[i] for i in ids} for split, ids in folder.split_by_name(more).items()}
    assert all(splits[split] <= again[split] for split in splits)


@pytest.mark.parametrize(
    "spelling", [("train", "val", "test"), ("Training", "valid", "Testing"), ("meta_train", "dev", "tst")]
)
def test_folder_takes_its_own_split(tmp_path, own_cache, spelling):
    small_folder(tmp_path, spelling)
    (tmp_path / "notes.txt").unlink()
    source = Folder(data_root=tmp_path, size=12, ways=3, queries=2)
    assert source.classes("validation") == tuple(f"{spelling[1]}class{c}" for c in range(5))
    assert_never_meet(source)


def test_folder_names_what_lies_beside_its_own_split(tmp_path, own_cache):
    small_folder(tmp_path, ("train", "test", "extra"), classes=2)
    source = Folder(data_root=tmp_path, size=12, ways=2, queries=2)
    with pytest.warns(DataWarning, match=r"2 classes passed over beside the folders of splits \(the first extra/ext"):
        assert source.classes("train") == ("trainclass0", "trainclass1")
    with pytest.raises(
        UserError, match=r"the validation split has 0 classes in all \(train 2, test 2\): no task can be"
    ):
        source.sample(1, Key(0).numpy(), "validation")


def test_folder_refuses_a_class_in_two_splits(tmp_path, own_cache):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat/0.png").write_bytes(png(noise(split)))
    with pytest.raises(UserError, match=r"1 classes are in two splits \(cat\)"):
        _ = Folder(data_root=tmp_path).images


def test_folder_layout_errors(tmp_path, own_cache):
    (tmp_path / "empty/a").mkdir(parents=True)
    (tmp_path / "empty/a/readme.md").write_text("nothing")
    with pytest.raises(
        UserError, match=r"pictures of 0 classes, at least 2 are needed \(1 folders without a picture, the"
    ):
        _ = Folder(data_root=tmp_path / "empty").images
    small_folder(tmp_path / "full")
    (tmp_path / "full/stray.png").write_bytes(png(noise("stray")))
    with pytest.warns(DataWarning, match=r"1 pictures passed over outside of folders as deep as class0 \(stray.png\)"):
        assert len(Folder(data_root=tmp_path / "full", size=8).images.classes) == 5
    with pytest.raises(UserError, match="size must be between 8 and 1024"):
        Folder(size=4)


def pgm(*path):
    return png(noise(*path, shape=(12, 10)), "PPM")


def test_gtsrb_and_orl_are_read_as_their_authors_ship_them(tmp_path, own_cache):
    """Formats PPM and PGM, classes below folders of folders, annotations beside them, unlabelled test pictures."""
    for c in range(4):
        home = tmp_path / f"GTSRB/Final_Training/Images/{c:05d}"
        home.mkdir(parents=True)
        (home / f"GT-{c:05d}.csv").write_text("Filename;Width")
        for i in range(3):
            (home / f"{i:05d}.ppm").write_bytes(png(noise(c, i), "PPM"))
        (tmp_path / f"ORL/s{c}").mkdir(parents=True)
        for i in range(3):
            (tmp_path / f"ORL/s{c}/{i}.pgm").write_bytes(pgm(c, i))
    (tmp_path / "GTSRB/Final_Test/Images").mkdir(parents=True)
    for i in range(2):
        (tmp_path / f"GTSRB/Final_Test/Images/{i:05d}.ppm").write_bytes(png(noise("test", i), "PPM"))
    with pytest.warns(DataWarning) as said:
        signs = Folder(data_root=tmp_path / "GTSRB", size=12).images
    assert signs.classes == tuple(f"Final_Training/Images/{c:05d}" for c in range(4))
    assert signs.counts == (3, 3, 3, 3)
    np.testing.assert_array_equal(signs.pixels[4], noise(1, 1).transpose(2, 0, 1))
    (line,) = [str(each.message) for each in said]
    assert "2 pictures passed over outside" in line
    assert "4 passed over as no pictures" in line
    faces = Folder(data_root=tmp_path / "ORL", size=12, grey=True).images
    assert (faces.classes, faces.counts) == (("s0", "s1", "s2", "s3"), (3, 3, 3, 3))


def test_a_mixed_folder_loses_nothing(tmp_path, own_cache):
    """Formats beside each other, and a picture whose name does not say that it is one."""
    for c, fmt in enumerate(("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "TGA")):
        (tmp_path / f"{c}").mkdir()
        for i in range(2):
            suffix = {"TIFF": "tif", "PPM": "pnm"}.get(fmt, fmt.lower())
            (tmp_path / f"{c}/{i}.{suffix}").write_bytes(png(noise(c, i), fmt))
    (tmp_path / "0/unnamed").write_bytes(png(noise("unnamed")))
    images = Folder(data_root=tmp_path, size=12).images
    assert images.counts == (3, *(2,) * 7)
    groups = Folder(data_root=tmp_path, size=12).images.groups
    assert groups == images.classes


def test_group_folders_are_groups(tmp_path, own_cache):
    for group in "ab":
        for c in range(3):
            (tmp_path / group / str(c)).mkdir(parents=True)
            (tmp_path / group / str(c) / "x.png").write_bytes(png(noise(group, c)))
    images = Folder(data_root=tmp_path, size=12).images
    assert images.classes == ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")
    assert images.groups == ("a", "a", "a", "b", "b", "b")


def test_linked_class_folders_are_read_and_what_is_not_a_file_is_named(tmp_path, own_cache):
    small_folder(tmp_path / "real", classes=2)
    mine = tmp_path / "mine"
    mine.mkdir()
    for c in range(2):
        (mine / f"linked{c}").symlink_to(tmp_path / f"real/class{c}")
    (mine / "again").symlink_to(mine / "linked0")
    (mine / "up").symlink_to(tmp_path)
    (mine / "linked1/dead.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(mine / "linked1/x.png")  # opening it would hang
    with pytest.warns(DataWarning) as said:
        images = Folder(data_root=mine, size=12).images
    assert images.classes == ("again", "linked1")  # one name for a folder that two links lead to
    (line,) = [str(each.message) for each in said]
    assert "1 links that lead nowhere (linked1/dead.png)" in line
    assert "1 passed over as neither files nor folders (linked1/x.png)" in line
    assert "2 links passed over, to folders that are read already or lie around this one (the first linked0)" in line


def test_all_damaged_pictures_are_named_at_once(tmp_path, own_cache):
    small_folder(tmp_path, classes=3)
    for name in ("class0/1.png", "class1/2.png", "class2/3.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError) as said:
        _ = Folder(data_root=tmp_path, size=12).images
    assert str(said.value).startswith("3 of 15 pictures: ")
    assert all(f"{tmp_path}/class{c}/{c + 1}.png cannot be read" in str(said.value) for c in range(3))
    assert "\n" not in str(said.value)


def test_pictures_and_classes_that_show_nothing_are_named_each_time(tmp_path, own_cache):
    small_folder(tmp_path, classes=3)
    (tmp_path / "class0/1.png").write_bytes(png(np.full((9, 9, 3), 200, np.uint8)))
    for i in range(6):
        (tmp_path / f"class2/{i}.png").write_bytes(png(noise("one")))
    out = io.BytesIO()
    Image.fromarray(noise("a")).save(out, "GIF", save_all=True, append_images=[Image.fromarray(noise("b"))])
    (tmp_path / "class1/9.gif").write_bytes(out.getvalue())
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(DataWarning) as said:
            folder.read.__wrapped__(tmp_path, Preparation("RGB", (12, 12)))
        (line,) = [str(each.message) for each in said]
        assert "1 pictures of a single colour when prepared (class0/1.png)" in line
        assert "1 classes that hold one picture again and again (class2)" in line
        assert "1 pictures with several frames, of which the first is used (class1/9.gif)" in line


def test_a_class_with_too_few_pictures_is_named(tmp_path, own_cache):
    small_folder(tmp_path, ("train", "test"), classes=10, pictures=7)
    for i in range(2, 10):
        (tmp_path / f"train/trainclass3/{i}.png").unlink(missing_ok=True)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(UserError, match=r"1 train classes have fewer \(trainclass3: 2\); lower --shots or --queries"):
        Folder(data_root=tmp_path, size=8, shots=1, queries=5).sample(1, Key(0).numpy())


def test_mini_imagenet_may_have_folders_of_classes(tmp_path, own_cache, monkeypatch):
    small_mini(tmp_path, monkeypatch)
    home = tmp_path / "mini_imagenet/images"
    flat = mini_imagenet.read.__wrapped__(tmp_path)[0].pixels.copy()
    for path in sorted(home.iterdir()):
        (home / path.name[:3]).mkdir(exist_ok=True)
        path.rename(home / path.name[:3] / path.name)
    np.testing.assert_array_equal(mini_imagenet.read.__wrapped__(tmp_path)[0].pixels, flat)
    (home / "n000.jpg").write_bytes(png(noise("other"), "JPEG"))
    with pytest.raises(UserError, match=r"holds 1 pictures twice, the first n00/n000.jpg and n000.jpg"):
        mini_imagenet.read.__wrapped__(tmp_path)


# ---- a thousand damaged files


def damaged(data, rng):
    """The bytes with one kind of accident: cut short, bytes changed, a block lost, doubled, or zeroed."""
    kind, at = rng.integers(5), int(rng.integers(len(data)))
    length = int(rng.integers(1, 64))
    if kind == 0:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            changed[place] ^= int(rng.integers(1, 256))
        return bytes(changed)
    if kind == 2:
        return data[:at] + data[at + length :]
    if kind == 3:
        return data[:at] + data[at : at + length] * 2 + data[at + length :]
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def listing(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def attempt(read):
    try:
        return read(), None
    except UserError as error:
        return None, str(error)


def bombard(count, target, read, same, own_cache, root, name):
    """Damage `target` `count` times: each time one UserError, or harmless and the same data; nothing left behind."""
    whole, rng, refused = target.read_bytes(), Key(0)("damage", name).numpy(), 0
    before = listing(root)
    for _ in range(count):
        broken = damaged(whole, rng)
        target.write_bytes(broken)
        for file in own_cache.glob("*"):
            file.unlink()
        found, error = attempt(read)
        if error is None:
            assert same(found), "damage went unnoticed"
        else:
            refused += 1
            assert "\n" not in error
            assert str(target.parent) in error
            assert not list(own_cache.glob("*.part"))
        assert listing(root) == before
    target.write_bytes(whole)
    assert same(read())
    return refused


def test_damaged_omniglot_archives(tmp_path, own_cache, monkeypatch):
    root = tmp_path / "data"
    small_omniglot(root, monkeypatch, drawings=4)
    good = omniglot.read.__wrapped__(root)
    refused = bombard(
        300,
        root / "omniglot/images_evaluation.zip",
        lambda: omniglot.read.__wrapped__(root),
        lambda found: found.classes == good.classes and np.array_equal(found.pixels, good.pixels),
        own_cache,
        root,
        "omniglot",
    )
    assert refused > 270


def test_damaged_cifar_archives(tmp_path, own_cache, monkeypatch):
    small_cifar(tmp_path, monkeypatch, 1)
    root = tmp_path / "binary"
    path = root / cifar_fs.BINARY.path
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    good = cifar_fs.read.__wrapped__(root)
    refused = bombard(
        200,
        path,
        lambda: cifar_fs.read.__wrapped__(root),
        lambda found: np.array_equal(found.pixels, good.pixels),
        own_cache,
        root,
        "cifar",
    )
    assert refused > 180


def test_damaged_mini_imagenet_lists(tmp_path, own_cache, monkeypatch):
    root = tmp_path / "data"
    small_mini(root, monkeypatch)
    good = mini_imagenet.read.__wrapped__(root)
    refused = bombard(
        250,
        root / "mini_imagenet/val.csv",
        lambda: mini_imagenet.read.__wrapped__(root),
        lambda found: found[1] == good[1] and np.array_equal(found[0].pixels, good[0].pixels),
        own_cache,
        root,
        "lists",
    )
    assert refused > 225


def test_damaged_pictures(tmp_path, own_cache):
    root = tmp_path / "data"
    small_folder(root, classes=2, pictures=1)
    good, _ = folder.read.__wrapped__(root, Preparation("RGB", (12, 12)))
    refused = bombard(
        250,
        root / "class1/1.png",
        lambda: folder.read.__wrapped__(root, Preparation("RGB", (12, 12))),
        lambda found: np.array_equal(found[0].pixels, good.pixels),
        own_cache,
        root,
        "pictures",
    )
    assert refused > 225


def test_a_data_folder_that_cannot_be_is_named(monkeypatch, tmp_path):
    for root in (tmp_path / ("x" * 300), tmp_path / ("y" * 5000)):
        with pytest.raises(UserError, match=r"^the data folder .* cannot be used: File name too long$"):
            downloads.data_folder(root)
        monkeypatch.setenv("METARL_DATA", str(root))
        with pytest.raises(UserError, match="File name too long"):
            Omniglot().fixed("test", 1)
    assert downloads.data_folder(tmp_path / "not there yet") == tmp_path / "not there yet"
