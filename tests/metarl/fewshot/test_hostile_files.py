"""Files that someone has made to hurt whoever reads them: one line, soon, in little memory; never a hang."""

import bz2
import gzip
import io
import os
import signal
import socket
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from command_line import metarl, refused
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.datasets import archives, picture_files
from metarl.fewshot.datasets.archives import ZipStore, open_store, read_tar_gz
from metarl.fewshot.datasets.folders import FolderStore
from metarl.fewshot.datasets.pictures import decode


@pytest.fixture(autouse=True)
def no_hang():
    """What waits for ever fails the test in its place."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120)
    yield
    signal.alarm(0)


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def with_sizes(path, old, new):
    """The archive with a member's unpacked size changed wherever it is said."""
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", old), struct.pack("<I", new)))
    return path


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", b"x" * 5_000_001)], compression=zipfile.ZIP_DEFLATED)
    store = ZipStore(with_sizes(path, 5_000_001, 10))
    assert store.names == ("a.png",)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="cannot be read"):
            store.read("a.png")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # no more is unpacked than it says
    finally:
        tracemalloc.stop()


def test_members_that_unpack_to_far_more_than_they_are_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", b"\0" * (1 << 25))], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        _ = ZipStore(path).names


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_whose_unpacking_has_no_bound_are_refused(tmp_path, method):
    with pytest.raises(UserError, match="neither stored nor deflated"):
        _ = ZipStore(zipped(tmp_path / "a.zip", [("a.png", b"x")], compression=method)).names


def test_members_that_overlap_are_refused(tmp_path):
    """Fifield's bomb: many members are the same bytes."""
    path = zipped(tmp_path / "a.zip", [("a", b"x" * 100), ("b", b"x" * 100)])
    data = bytearray(path.read_bytes())
    first, second = (data.index(b"PK\1\2"), data.rindex(b"PK\1\2"))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # both begin where the first does
    path.write_bytes(data)
    with pytest.raises(UserError, match="overlap"):
        _ = ZipStore(path).names


def test_a_list_of_members_of_any_length_is_not_read_at_once(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", [(f"{i:05}", b"") for i in range(1000)])
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 10_000)
    with pytest.raises(UserError, match="10000"):
        _ = ZipStore(path).names


def tarred(path, *members):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data, more in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in more.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_what_a_tar_archive_says_of_a_member_is_bounded(tmp_path):
    path = tarred(tmp_path / "a.tar.gz", ("a", b"1", {"pax_headers": {"comment": "x" * (1 << 21)}}))
    with pytest.raises(UserError, match="at once; at most 1048576 are read"):
        read_tar_gz(path, ("a",), 1 << 30)


def test_two_tar_members_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="two members are called 'a'"):
        read_tar_gz(tarred(tmp_path / "a.tar.gz", ("a", b"1", {}), ("a", b"2", {})), ("a",), 100)


def test_sparse_and_countless_tar_members_are_refused(tmp_path, monkeypatch):
    sparse = tarred(
        tmp_path / "a.tar.gz", ("a", b"", {"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}})
    )
    with pytest.raises(UserError, match="sparse"):
        read_tar_gz(sparse, ("a",), 100)
    monkeypatch.setattr(archives, "MAX_TAR_MEMBERS", 2)
    with pytest.raises(UserError, match="more than 2 members"):
        read_tar_gz(tarred(tmp_path / "b.tar.gz", *((name, b"", {}) for name in "abc")), (), 100)


@pytest.mark.parametrize("data", [gzip.compress(b"\0" * 10**7) + b"rubbish", bz2.compress(b"\0" * 10**7), b"\x1f\x8b"])
def test_streams_that_are_no_whole_gzip_are_refused(tmp_path, data):
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar\.gz cannot be read"):
        read_tar_gz(tmp_path / "a.tar.gz", (), 1 << 20)


def special(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's whole path is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 7 << 30)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "huge"])
def test_what_is_no_file_is_not_opened_as_an_archive(tmp_path, kind):
    special(tmp_path / "a.zip", kind)
    with pytest.raises(UserError, match=r"a\.zip cannot be read"):
        _ = open_store(tmp_path / "a.zip").names
    if kind != "huge":
        with pytest.raises(UserError, match=r"a\.zip cannot be read"):
            open_store(tmp_path / "a.zip").fingerprint()
        with pytest.raises(UserError, match=r"a\.zip cannot be read"):
            read_tar_gz(tmp_path / "a.zip", (), 100)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of noise."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.effect_noise((32, 32), 60 + i).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def judged(folder, cache, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(cache))
    few = ["--ways", "2", "--shots", "1", "--queries", "1", "--tasks", "2", "--split", "train"]
    return metarl("evaluate", "pixels", "--dataset", "folder", "--data-root", folder, *few)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "loop"])
def test_what_is_no_picture_among_pictures_is_passed_over_and_named(pictures, tmp_path, monkeypatch, kind):
    special(pictures / "a" / "x.png", kind)
    said = judged(pictures, tmp_path / "cache", monkeypatch)
    assert said.code == 0
    assert "a/x.png" in said.err


def test_a_huge_file_among_pictures_is_not_read(pictures, tmp_path, monkeypatch):
    special(pictures / "a" / "x.png", "huge")
    assert "7516192768 bytes, at most 268435456 are read" in refused(judged(pictures, tmp_path / "cache", monkeypatch))


@pytest.mark.parametrize("name", [b"\xff.png", b"a\nb.png", b"\x1b[31mred.png"])
def test_names_that_are_no_text_are_passed_over_and_spelled_out(pictures, tmp_path, monkeypatch, name):
    with open(os.fsencode(pictures / "a") + b"/" + name, "wb") as file:
        file.write((pictures / "a" / "0.png").read_bytes())
    said = judged(pictures, tmp_path / "cache", monkeypatch)
    assert said.code == 0
    assert "1 passed over for names that are not UTF-8 or cannot be printed" in said.err
    assert "\x1b" not in said.out + said.err
    assert FolderStore(pictures).names == tuple(f"{c}/{i}.png" for c in "ab" for i in range(3))


def png_of(*chunks, size=(8, 8)):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 9 * 8))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + rows + chunk(b"IEND", b"")


def jpeg(size, scans):
    out = io.BytesIO()
    Image.new("L", size).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


TEXT = (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**7))
HOSTILE = {
    "larger than it may be": (png_of(size=(50_000, 50_000)), "cannot be read"),
    "a text that unpacks": (png_of(TEXT), "too large"),
    "a profile that unpacks": (png_of((b"iCCP", TEXT[1])), "cannot be read"),
    "countless pieces": (png_of(*[(b"tEXt", b"a\0b")] * 1000), "more than 2000000 pieces"),
    "countless scans": (jpeg((2000, 2000), 300), "scans of 2000x2000 pixels"),
    "slow in Python": (b"P3 8000 8000 255\n" + b"1 " * 100, "more than 4194304 pixels"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_are_refused(name, monkeypatch):
    data, why = HOSTILE[name]
    monkeypatch.setattr(picture_files._Pieces, "_left", 1000)
    with pytest.raises(UserError, match=f"x.png cannot be read .*{why}" if why != "cannot be read" else why):
        decode(data, "x.png", "RGB")


@pytest.mark.parametrize("frames", [1, 1000])
def test_of_a_film_the_first_frame_is_decoded_alone(frames):
    out = io.BytesIO()
    Image.new("L", (8, 8), 7).save(out, "GIF")
    data = out.getvalue()
    frame = next(i for i in range(13, len(data)) if data[i : i + 9] == b"," + bytes(4) + struct.pack("<HH", 8, 8))
    film = data[:-1] + data[frame:-1] * frames + data[-1:]
    assert decode(film, "x.gif", "L").tolist() == [[[7] * 8] * 8]
