"""Pictures: what a person sees is what is learned, in every mode, orientation and format; nothing hangs."""

import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from metarl.errors import UserError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets import picture_files
from metarl.fewshot.datasets.pictures import Preparation, decode, render
from metarl.fewshot.datasets.reading import DataWarning
from metarl.fewshot.inputs import InputError

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040  # to 65520
TURNS = {  # how EXIF's orientations are turned upright, in numpy's words
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def saved(picture, fmt, **options):
    out = io.BytesIO()
    picture.save(out, fmt, **options)
    return out.getvalue()


def on_white(colours, alpha):
    """8-bit colours `(..., 3)` under an alpha `(...)`, by the formula."""
    share = alpha[..., None].astype(np.float64) / 255
    return np.rint(colours * share + 255 * (1 - share))


def luma(colours):
    """Grey by ITU-R 601-2, as Pillow's documentation has it."""
    return colours @ np.array([299, 587, 114]) / 1000


sides = st.integers(1, 9)
MODES = (
    *("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "La", "PA", "RGBA", "RGBa"),
    *("I;16", "I;16L", "I;16B", "I;16N", "I", "F", "L+clear", "RGB+clear", "P+clear"),
)
FORMATS = (
    *("png", "jpg", "webp", "bmp", "gif", "tif", "ppm", "pgm", "tga", "ico", "jp2"),
    *("avif", "pcx", "sgi", "dds", "qoi", "im", "dib"),
)


@st.composite
def seen(draw):
    """A picture in any of Pillow's modes, and what it shows `(height, width, 3)`."""
    mode = draw(st.sampled_from(MODES))
    shape = (draw(sides), draw(sides))
    colours = draw(arrays(np.uint8, (*shape, 3)))
    alpha = draw(arrays(np.uint8, shape))
    rgb, grey = Image.fromarray(colours), Image.fromarray(colours[..., 0])
    spread = np.repeat(colours[..., :1], 3, 2)
    if mode in ("1", "L", "RGB", "RGBX"):
        picture = rgb.convert(mode) if mode != "1" else Image.fromarray(colours[..., 0] > 127)
        shown = {"1": np.where(spread > 127, 255, 0), "L": np.repeat(np.asarray(rgb.convert("L"))[..., None], 3, 2)}
        return picture, shown.get(mode, colours)
    if mode in ("CMYK", "YCbCr", "HSV"):
        picture = Image.fromarray(draw(arrays(np.uint8, (*shape, 4 if mode == "CMYK" else 3))), mode)
        return picture, np.asarray(picture.convert("RGB"))
    if mode in ("P", "PA", "P+clear"):
        picture = Image.fromarray(colours[..., 0], "P")
        table = draw(arrays(np.uint8, (256, 3)))
        picture.putpalette(table.tobytes())
        if mode == "P+clear":
            clear = draw(st.binary(min_size=256, max_size=256))
            picture.info["transparency"] = clear
            return picture, on_white(table[colours[..., 0]], np.frombuffer(clear, np.uint8)[colours[..., 0]])
        if mode == "PA":
            picture = picture.convert("PA")
            picture.putalpha(Image.fromarray(alpha))
            return picture, on_white(table[colours[..., 0]], alpha)
        return picture, table[colours[..., 0]]
    if mode in ("LA", "RGBA"):
        picture = (grey if mode == "LA" else rgb).convert(mode)
        picture.putalpha(Image.fromarray(alpha))
        return picture, on_white(spread if mode == "LA" else colours, alpha)
    if mode in ("La", "RGBa"):  # colours multiplied by alpha
        picture = (grey if mode == "La" else rgb).convert(mode[:-1] + "A")
        picture.putalpha(Image.fromarray(alpha))
        shown = on_white(spread if mode == "La" else colours, alpha)
        return picture.convert(mode), shown
    if mode == "L+clear":
        grey.info["transparency"] = int(colours[0, 0, 0])
        return grey, np.where(spread == colours[0, 0, 0], 255, spread)
    if mode == "RGB+clear":
        rgb.info["transparency"] = tuple(int(c) for c in colours[0, 0])
        return rgb, np.where((colours == colours[0, 0]).all(-1)[..., None], 255, colours)
    values = draw(arrays(np.uint16, shape))
    values.flat[0] = 60_000  # so that no smaller range fits
    shown = np.repeat(np.rint(values / 257)[..., None], 3, 2)
    if mode.startswith("I;16"):
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, shape[::-1], values.astype(order).tobytes()), shown
    return Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32)), shown


@given(seen())
def test_every_mode_shows_what_a_person_sees(case):
    picture, shown = case
    near = 3 if picture.mode in ("La", "RGBa") else 1  # multiplied colours were rounded
    before = picture.copy()
    np.testing.assert_allclose(render(picture, "RGB").transpose(1, 2, 0).astype(float), shown, atol=near)
    np.testing.assert_allclose(render(picture, "L")[0].astype(float), luma(np.asarray(shown, float)), atol=near + 1)
    assert picture == before


@given(arrays(np.uint8, st.tuples(sides, sides, st.just(3))), st.sampled_from(sorted(TURNS)), st.data())
def test_every_orientation_is_upright(colours, orientation, data):
    fmt = data.draw(st.sampled_from(["PNG", "WEBP", "TIFF"]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = saved(Image.fromarray(colours), fmt, exif=exif, **({"lossless": True} if fmt == "WEBP" else {}))
    np.testing.assert_array_equal(decode(stored, "x", "RGB").transpose(1, 2, 0), TURNS[orientation](colours))


def test_a_photograph_held_sideways_is_upright():
    picture = Image.fromarray(np.linspace(0, 255, 32 * 48).astype(np.uint8).reshape(32, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(saved(picture, "JPEG", exif=exif, quality=95), "x.jpg", "L")
    assert found.shape == (1, 48, 32)
    np.testing.assert_allclose(found[0].astype(float), np.rot90(np.asarray(picture), -1), atol=8)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_are_scaled_not_clipped(fmt):
    found = decode(saved(Image.fromarray(RAMP), fmt), f"x.{fmt.lower()}", "L")
    np.testing.assert_array_equal(found[0], np.rint(RAMP / 257))


def test_a_sixteen_bit_picture_that_is_dark_stays_dark():
    """The range is the file's, not the picture's: 200 of 65535 is black, whatever Pillow calls the mode."""
    dark = Image.fromarray(np.full((4, 4), 200, np.uint16))
    assert decode(saved(dark, "PNG"), "x.png", "L").max() == 1
    assert decode(saved(dark, "PPM"), "x.pgm", "L").max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 255]], [[0, 255]]),
        ([[0, 256]], [[0, 1]]),
        ([[0, 65535]], [[0, 255]]),
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.0, 127.6]], [[0, 128]]),
        ([[0.0, 65535.0]], [[0, 255]]),
    ],
)
def test_numbers_of_more_bits_are_in_the_smallest_usual_range(values, expected):
    kind = np.float32 if isinstance(values[0][0], float) else np.int32
    assert render(Image.fromarray(np.array(values, kind)), "L")[0].tolist() == expected


@pytest.mark.parametrize("values", [[[-1, 3]], [[0, 65536]], [[0.0, float("nan")]], [[0.0, float("inf")]]])
def test_numbers_without_a_range_are_refused(values):
    kind = np.float32 if isinstance(values[0][1], float) else np.int32
    data = saved(Image.fromarray(np.array(values, kind)), "TIFF")
    with pytest.raises(
        UserError, match=r"x\.tif cannot be read \(its grey values go from .* to .*; at most 0 to 65535"
    ):
        decode(data, "x.tif", "L")


def test_lab_is_turned_to_rgb():
    colours = np.array([[[250, 10, 10], [20, 200, 30], [128, 128, 128]]], np.uint8)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(colours), to_lab)
    data = saved(lab, "TIFF")
    for mode, expected in (("RGB", colours[0].T), ("L", luma(colours[0])[None])):
        np.testing.assert_allclose(decode(data, "x.tif", mode)[:, 0].astype(float), expected, atol=4)


def test_a_fax_in_which_white_is_zero():
    grey = Image.fromarray(RAMP)
    data = saved(grey, "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.tag_v2[262] == 0
    np.testing.assert_array_equal(decode(data, "x.tif", "L")[0], np.rint((65535 - RAMP) / 257))


def test_the_first_frame_is_shown():
    first, second = (Image.new("RGB", (5, 4), colour) for colour in ("red", "blue"))
    for fmt in ("GIF", "WEBP", "TIFF", "PNG"):
        data = saved(first, fmt, save_all=True, append_images=[second])
        red = decode(data, "x", "RGB")[:, 0, 0].astype(int)
        assert abs(red - [255, 0, 0]).max() < 8
        with picture_files.opened(data, "x") as opened:
            assert picture_files.has_frames(opened)


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_are_read(suffix):
    fmt = Image.registered_extensions().get(f".{suffix}")
    if fmt not in Image.OPEN:
        pytest.skip(f"this Pillow has no {suffix}")
    colours = np.full((32, 32, 3), 40, np.uint8)
    colours[:, :16] = 220
    picture = Image.fromarray(colours)
    data = saved(picture.convert("L") if suffix == "pgm" else picture, fmt)
    found = decode(data, f"x.{suffix}", "RGB").transpose(1, 2, 0)
    np.testing.assert_allclose(found.astype(float), colours, atol=12)
    assert picture_files.is_picture(f"X.{suffix.upper()}", lambda: b"")


def test_what_could_run_programs_is_not_read():
    assert not {".eps", ".wmf", ".fits", ".h5", ".mpg"} & set(picture_files.suffixes())
    assert not picture_files.is_picture("notes.txt", lambda: b"P5 is the plan")
    assert picture_files.is_picture("no ending", lambda: b"\xff\xd8\xff\xe0")


# Files that are none, and huge ones


def test_a_pipe_does_not_hang_and_a_sparse_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(7 << 30)
    x = [tmp_path / "x.png", tmp_path / "big.png", tmp_path]
    with pytest.raises(UserError) as said:
        FewShotClassifier().fit(x, [0, 1, 1])
    assert "3 of 3 pictures: " in str(said.value)
    assert str(said.value).count("not a regular file") == 2
    assert "7516192768 bytes, at most 268435456 are read" in str(said.value)


# A classifier of an encoder's, given real files


@pytest.fixture
def files(tmp_path):
    """Six pictures of two classes, ink above or below, in several sizes and modes; their names and labels."""
    made = []
    for i, (mode, side) in enumerate([("RGBA", 20), ("L", 31), ("1", 16), ("LA", 24), ("P", 40), ("I;16", 28)]):
        ink = np.zeros((side, side), np.uint8)
        ink[: side // 2] = 255
        ink = ink[::-1] if i % 2 else ink
        if mode == "RGBA":
            picture = Image.fromarray(np.dstack([np.zeros((side, side, 3), np.uint8), ink]))
        elif mode == "LA":
            picture = Image.fromarray(np.zeros_like(ink)).convert("LA")
            picture.putalpha(Image.fromarray(ink))
        elif mode == "I;16":
            picture = Image.fromarray((255 - ink).astype(np.uint16) * 257)
        else:
            picture = Image.fromarray(255 - ink).convert(mode)
        made.append(tmp_path / f"{i}.png")
        picture.save(made[-1])
    return made, ["up", "down"] * 3


class Series:
    """As much of pandas' as is needed: numpy can read it, and it cannot be indexed by place."""

    ndim = 1

    def __init__(self, values):
        self.values = np.empty(len(values), object)
        self.values[:] = values

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        raise KeyError(index)

    @property
    def shape(self):
        return self.values.shape


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": lambda values: np.array(values, object),
    "series": Series,
    "generator": lambda values: (value for value in values),
    "dict values": lambda values: dict(enumerate(values)).values(),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", [str, lambda path: path, os.fspath], ids=["str", "Path", "fspath"])
def test_files_in_any_usual_container(files, container, kind):
    paths, labels = files
    put = CONTAINERS[container]
    model = FewShotClassifier(size=12, grey=True).fit(put([kind(p) for p in paths]), put(labels))
    assert model.predict(put([kind(p) for p in paths])).tolist() == labels


def test_an_encoder_s_pictures_of_all_sizes_and_modes(files):
    paths, labels = files
    model = FewShotClassifier(size=(10, 12)).fit(paths, labels)
    assert model._support.shape == (6, 3, 10, 12)  # one of them has colours
    assert model.predict(paths).tolist() == labels
    assert FewShotClassifier(size=9, grey=True, device="cpu").fit(paths, labels)._support.shape == (6, 1, 9, 9)
    grey = [paths[1], paths[2]]
    model = FewShotClassifier(size=9).fit(grey, [1, 0])
    assert model._support.shape == (2, 1, 9, 9)
    with pytest.raises(InputError, match="these pictures have colours, those learned from are grey: give grey=True"):
        model.predict(paths)
    with pytest.raises(InputError, match=r"different shapes, .* give size="):
        FewShotClassifier().fit(paths, labels)


def test_ink_on_a_transparent_ground_is_not_blank(tmp_path):
    for name, rows in (("o", slice(0, 8)), ("x", slice(8, 16))):
        ink = np.zeros((16, 16, 4), np.uint8)  # black and clear
        ink[rows, :, 3] = 255
        Image.fromarray(ink).save(tmp_path / f"{name}.png")
    model = FewShotClassifier().fit([tmp_path / "o.png", tmp_path / "x.png"], ["o", "x"])
    assert model.predict_proba([tmp_path / "o.png"])[0].tolist() == pytest.approx([1, 0], abs=1e-6)


def test_a_blank_picture_is_named(tmp_path):
    Image.new("L", (9, 9), 7).save(tmp_path / "blank.png")
    Image.linear_gradient("L").resize((9, 9)).save(tmp_path / "ramp.png")
    x = [tmp_path / "blank.png", tmp_path / "ramp.png"]
    with pytest.warns(DataWarning, match=r"1 pictures of a single colour when prepared \(.*blank\.png\)"):
        model = FewShotClassifier().fit(x, [0, 1])
    with pytest.warns(DataWarning, match=r"the pictures to classify: 1 pictures of a single colour .*blank\.png"):
        model.predict(x)


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({}, "a.png", "pictures come as a list, also where there is only one; got 'a.png'"),
        ({}, {"a.png", "b.png"}, "pictures come in an order, which a set has not"),
        ({"size": 8, "preparation": Preparation("L", (8, 8))}, np.zeros((2, 8, 8)), "preparation already says size"),
        ({"device": "warp"}, np.zeros((2, 8, 8)), "this machine has no device 'warp'"),
        ({"size": 0}, np.zeros((2, 8, 8)), "positive size"),
        ({"grey": True}, np.zeros((2, 8)), "flat pictures have no height and width: give size"),
    ],
)
def test_wrong_arguments_get_one_line(options, x, message):
    with pytest.raises((InputError, UserError), match=message) as said:
        FewShotClassifier(**options).fit(x, [0, 1])
    assert "\n" not in str(said.value)


def test_the_preparation_of_arrays_by_size_and_grey():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (4, 20, 20, 3), dtype=np.uint8), [0, 1, 0, 1]
    small = FewShotClassifier(size=5).fit(x, y)._support
    expected = [np.asarray(Image.fromarray(each).resize((5, 5), Image.Resampling.LANCZOS)) / 255 for each in x]
    np.testing.assert_allclose(small.permute(0, 2, 3, 1).numpy(), np.stack(expected), atol=1e-7)
    assert FewShotClassifier(size=5, grey=True).fit(x, y)._support.shape == (4, 1, 5, 5)
    assert FewShotClassifier(grey=True).fit(x, y)._support.shape == (4, 1, 20, 20)
    assert FewShotClassifier(size=5).fit(x.reshape(4, -1)[:, :75], y)._support.shape == (4, 3, 5, 5)
