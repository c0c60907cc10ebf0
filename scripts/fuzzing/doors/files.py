"""What somebody else packed: folders of pictures, and archives where a data set's belong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from fuzzing.case import Case, Draw, Place
from metarl.seeding import Key

FEW = ["--tasks", "2", "--ways", "2", "--shots", "1", "--queries", "1", "--split", "train"]
SIZES = [(1, 1), (8, 8), (32, 32), (300, 1), (1, 5000)]
NAMES = [
    *(b"x.png", b"\xff.png", b"a\nb.png", b"\x1b[31m.png", b"..png", b"a..b.jpg", b"X.PNG", b"a:b.png", b"a\\b.png"),
    *(b" .png", b"x.txt", b"x", b"x.eps", b"x.tif", b"x.ico", b"x.gif", b"x.ppm", b"x.qoi", b"\xe2\x80\xae.png"),
]
MEMBERS = [
    "a.png",
    "../up.png",
    "/abs.png",
    "C:/x.png",
    "a\\b.png",
    "A.PNG",
    "a/./b.png",
    "a\0b.png",
    "é.png",
    "",
    "a/",
]
ANYWHERE = st.integers(0, 10**9)  # no bound may depend on data, which may hold the name of the place
TYPES = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE]


def pictures(draw: Draw, place: Place) -> Case:
    """A folder of pictures with some that are none, read as a data set or by `predict`."""
    for label in ("a", "b"):
        for i in range(3):
            place.write(f"data/{label}/{i}.png", _noise(i))
    for _ in range(draw(st.integers(1, 3))):
        folder = draw(st.sampled_from(["data/a", "data/b", "data", "data/c", "data/train", "data/a/deep"]))
        _put(draw, place.folder / folder, draw(st.sampled_from(NAMES)))
    cache = {"METARL_CACHE": "cache"}
    if draw(st.booleans()):
        grey = ["--grey"] if draw(st.booleans()) else []
        words = ["evaluate", "pixels", "--dataset", "folder", "--data-root", "data", "--size", "8", *FEW, *grey]
        return Case(words, cache, leaves=("cache*",))
    query = [os.fsdecode(path) for path in sorted(os.scandir(place.folder / "data/a"), key=lambda e: e.name)][:3]
    return Case(["predict", str(place.kept / "glyphs"), "--support", "data", "--query", *query], cache)


def archives(draw: Draw, place: Place) -> Case:
    """Archives of strangers, where those of a data set are looked for."""
    name = draw(st.sampled_from(["cifar-fs", "omniglot", "mini-imagenet"]))
    if name == "cifar-fs":
        packed = draw(st.booleans())
        file = "cifar_fs/cifar_fs.zip" if packed else "cifar_fs/cifar-100-binary.tar.gz"
        place.write(f"data/{file}", _zip(draw, place) if packed else _tar_gz(draw))
    elif name == "omniglot":
        place.write("data/omniglot/images_background.zip", _zip(draw, place))
        place.write("data/omniglot/images_evaluation.zip", _zip(draw, place))
    else:
        for part in ("train", "val", "test"):
            place.write(f"data/mini_imagenet/{part}.csv", draw(st.one_of(st.binary(max_size=99), st.just(CSV))))
        place.write("data/mini_imagenet/images.zip", _zip(draw, place))
    if draw(st.integers(0, 9)) == 0:
        _put(draw, place.folder / "data" / "cifar_fs", draw(st.sampled_from([b"cifar_fs.zip", b"x.zip"])))
    words = ["evaluate", "pixels", "--dataset", name, "--data-root", "data", *FEW]
    return Case(words, {"METARL_CACHE": "cache", "METARL_OFFLINE": "1"}, leaves=("cache*", "data*"))


CSV = b"filename,label\n" + b"a.png,x\n" * 600


def _noise(i: int) -> bytes:
    out = io.BytesIO()
    Image.frombytes("L", (8, 8), Key(i).numpy().bytes(64)).save(out, "PNG")
    return out.getvalue()


def _put(draw: Draw, folder: Path, name: bytes) -> None:
    """Something in a folder, under a name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.path.join(os.fsencode(folder), name)
    if os.path.lexists(path):
        return
    kind = draw(st.sampled_from(["picture", "picture", "picture", "fifo", "huge", "loop", "link", "folder", "closed"]))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(draw(st.sampled_from([1 << 28, (1 << 28) + 1, 7 << 30, 1 << 40])))
    elif kind == "loop":
        os.symlink(os.path.basename(path), path)
    elif kind == "link":
        os.symlink(draw(st.sampled_from(["/dev/zero", "/etc/passwd", "..", "../..", "/", "nowhere", "0.png"])), path)
    elif kind == "folder":
        os.makedirs(os.path.join(path, *[b"d"] * draw(st.sampled_from([1, 3, 100, 1000]))))
    else:
        with open(path, "wb") as file:
            file.write(_picture(draw))
        if kind == "closed":
            os.chmod(path, 0)


def _picture(draw: Draw) -> bytes:
    """A picture's bytes, damaged or not."""
    kind = draw(st.sampled_from(["saved", "saved", "png", "text", "random", "empty"]))
    if kind == "empty":
        return b""
    if kind == "random":
        start = draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM", b"P6\n"]))
        return start + draw(st.binary(max_size=200))
    if kind == "text":
        return _chunked(
            draw(st.sampled_from([(b"zTXt", _bomb(1)), (b"iCCP", _bomb(1)), (b"iTXt", b"a\0\1\0\0\0" + _bomb(0))]))
        )
    if kind == "png":
        size = draw(st.sampled_from([(0, 0), (1, 1), (50_000, 50_000), (2**31 - 1, 1), (8192, 8191), (9000, 9000)]))
        depth, colour = draw(st.sampled_from([(8, 0), (8, 2), (16, 0), (16, 2), (8, 3), (8, 6), (1, 0), (3, 7)]))
        return _chunked(size=size, depth=depth, colour=colour)
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV", "LAB"]))
    suffix = draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "ICO", "JPEG2000"]))
    out, picture = io.BytesIO(), Image.new(mode, draw(st.sampled_from(SIZES)))
    try:
        picture.save(out, suffix)
    except (OSError, ValueError, KeyError):
        Image.new("L", picture.size).save(out, "PNG")
    return _damaged(draw, out.getvalue())


def _bomb(rest: int) -> bytes:
    return b"a\0" + b"\0" * rest + zlib.compress(b"x" * 10**7)


def _chunked(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8), depth: int = 8, colour: int = 0) -> bytes:
    """A PNG with a head that may say too much."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = chunk(b"IDAT", zlib.compress(b"\0" * 2000))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + rows + chunk(b"IEND", b"")


def _damaged(draw: Draw, data: bytes) -> bytes:
    """The bytes, or some of them, or with some others among them."""
    kind = draw(st.sampled_from(["whole", "cut", "flipped", "longer", "spread"]))
    if kind == "cut":
        return data[: draw(ANYWHERE) % (len(data) + 1)]
    if kind == "longer":
        return data + draw(st.binary(max_size=50))
    changed = bytearray(data)
    for _ in range({"flipped": 1, "spread": 20}.get(kind, 0)):
        changed[draw(ANYWHERE) % len(data)] = draw(st.integers(0, 255))
    return bytes(changed)


def _contents(draw: Draw, place: Place) -> bytes:
    return draw(st.sampled_from([b"", b"x", b"\0" * 10**6, _noise(0), place.payload(), _gzipped(b"\0" * 10**6)]))


def _zip(draw: Draw, place: Place) -> bytes:
    """A zip archive that lies in one way or another."""
    out = io.BytesIO()
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(out, "w", method) as archive:
        for _ in range(draw(st.integers(0, 4))):
            member = zipfile.ZipInfo("x")
            member.filename = draw(
                st.sampled_from([*MEMBERS, "cifar100/data/apple/x.png", "images_background/A/b/0.png"])
            )
            member.external_attr = draw(st.sampled_from([0, 0o120777 << 16, 0o020666 << 16, 0o100644 << 16]))
            member.compress_type = method
            archive.writestr(member, _contents(draw, place))
        archive.comment = draw(st.binary(max_size=20))
    data = bytearray(out.getvalue())
    change = draw(st.sampled_from(["none", "sizes", "directory", "bytes", "head", "zip64"]))
    directory = data.find(b"PK\1\2")
    if change == "sizes" and directory >= 0:
        data[directory + 24 : directory + 28] = struct.pack("<I", draw(st.sampled_from([0, 1, 2**28, 2**32 - 1])))
    elif change == "directory":
        end = data.rfind(b"PK\5\6")
        data[end + 8 : end + 20] = draw(st.binary(min_size=12, max_size=12))
    elif change == "head":
        data[:0] = draw(st.binary(max_size=40))
    elif change == "zip64":
        end = data.rfind(b"PK\5\6")
        numbers = [draw(st.sampled_from([0, 1, 46, 2**31, 2**40, 2**63, 2**64 - 1])) for _ in range(4)]
        record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, *numbers)
        data[end:end] = record + b"PK\6\7" + struct.pack("<IQI", 0, draw(st.sampled_from([end, 0, 2**63])), 1)
        data[-22 + 8 : -22 + 20] = b"\xff" * 12
    return _damaged(draw, bytes(data)) if change == "bytes" and data else bytes(data)


def _gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _tar_gz(draw: Draw) -> bytes:
    """A tar archive that lies in one way or another, packed as it should be or not."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    ) as archive:
        for _ in range(draw(st.integers(0, 4))):
            name = draw(
                st.sampled_from([*MEMBERS, "cifar-100-binary/train.bin", "cifar-100-binary/fine_label_names.txt"])
            )
            member = tarfile.TarInfo(name.replace("\0", ""))
            member.type, member.linkname = draw(st.sampled_from(TYPES)), "/etc/passwd"
            member.size = draw(st.sampled_from([0, 1, 1000]))
            member.pax_headers = {"comment": "x" * draw(st.sampled_from([0, 10, 1 << 21]))}
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    data = out.getvalue()
    if len(data) > 512 and draw(st.integers(0, 3)) == 0:  # a size that is not there, with the checksum that fits
        head = bytearray(data[:512])
        head[124:136] = draw(
            st.sampled_from([b"77777777777\0", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"rubbish    \0"])
        )
        head[148:156] = b" " * 8
        head[148:156] = f"{sum(head):06o}\0 ".encode()
        data = bytes(head) + data[512:]
    pack: Callable[[bytes], bytes] = draw(st.sampled_from([_gzipped, _gzipped, bz2.compress, lzma.compress, bytes]))
    padded = data + b"\0" * draw(st.sampled_from([0, 0, 10**7]))
    return _damaged(draw, pack(padded) + draw(st.binary(max_size=5)))
