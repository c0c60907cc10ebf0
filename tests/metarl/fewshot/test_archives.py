"""Hostile and damaged files: refused with one error that names the file; nothing written, nothing run."""

import io
import pickle
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.datasets import archives, cache, picture_files
from metarl.fewshot.datasets.archives import ZipStore, open_store, read_tar_gz
from metarl.fewshot.datasets.cache import decoded
from metarl.fewshot.datasets.folders import FolderStore
from metarl.fewshot.datasets.pictures import decode, shrink
from metarl.fewshot.datasets.reading import read_text


def png(value=0, size=(8, 6), mode="RGB", fmt="PNG"):
    out = io.BytesIO()
    Image.new(mode, size, value).save(out, fmt)
    return out.getvalue()


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return ZipStore(path)


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def tar_member(name, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def test_zip_and_folder_hold_the_same(tmp_path):
    members = [("b/2.txt", b"two"), ("a/1.txt", b"one")]
    store = make_zip(tmp_path / "a.zip", members)
    for name, data in members:
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "tree" / ".hidden").write_text("")
    folder = open_store(tmp_path / "tree")
    assert isinstance(folder, FolderStore)
    assert folder.names == store.names == ("a/1.txt", "b/2.txt")
    assert folder.read("b/2.txt") == store.read("b/2.txt") == b"two"
    before = folder.fingerprint()
    (tmp_path / "tree" / "a" / "1.txt").write_bytes(b"changed")
    assert FolderStore(tmp_path / "tree").fingerprint() != before


@pytest.mark.parametrize("name", ["../up.txt", "/etc/passwd", "a/../../up.txt", "C:/x", "a\\..\\up.txt"])
def test_names_that_escape_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"bad\.zip cannot be read \(unsafe member name"):
        _ = make_zip(tmp_path / "bad.zip", [("fine.txt", b""), (name, b"x")]).names
    with pytest.raises(UserError, match=r"bad\.tar\.gz cannot be read \(unsafe member name"):
        read_tar_gz(make_tar(tmp_path / "bad.tar.gz", [(tar_member(name), b"x")]), (), 100)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["bad.tar.gz", "bad.zip"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UserError, match="is a link or a device"):
        _ = make_zip(tmp_path / "bad.zip", [(link, b"/etc/passwd")]).names
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with pytest.raises(UserError, match="is a link or a device"):
            read_tar_gz(make_tar(tmp_path / "bad.tar.gz", [(tar_member("x", kind, "/etc/passwd"), b"")]), (), 100)


def test_size_limits(tmp_path, monkeypatch):
    store = make_zip(tmp_path / "a.zip", [("a", b"x" * 600), ("b", b"x" * 600)])
    for limit, value, message in (
        ("MAX_MEMBER_BYTES", 500, "'a' is larger than 500 bytes"),
        ("MAX_TOTAL_BYTES", 1000, "it unpacks to more than 1000 bytes"),
        ("MAX_MEMBERS", 1, "2 members, at most 1 are read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, limit, value)
            with pytest.raises(UserError, match=message):
                _ = ZipStore(store.path).names
    tar = make_tar(tmp_path / "a.tar.gz", [(tar_member("a"), b"x" * 600)])
    assert read_tar_gz(tar, ("a",), 600) == {"a": b"x" * 600}
    with pytest.raises(UserError, match="unpacks to more than 599 bytes"):
        read_tar_gz(tar, ("a",), 599)
    with pytest.raises(UserError, match="lacks b"):
        read_tar_gz(tar, ("a", "b"), 600)


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        store = make_zip(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(UserError, match="two members have one name"):
        _ = store.names


def test_encrypted_members_are_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", b"1")]).path
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is encrypted"):
        _ = ZipStore(path).names


def test_pictures_decode_to_channels_first():
    assert decode(png((1, 2, 3)), "p", "RGB").shape == (3, 6, 8)
    assert decode(png((1, 2, 3)), "p", "RGB")[:, 0, 0].tolist() == [1, 2, 3]
    assert decode(png(7, mode="L"), "p", "L").tolist() == [[[7] * 8] * 6]
    assert shrink(decode(png((1, 2, 3)), "p", "RGB"), (3, 4)).shape == (3, 3, 4)
    assert shrink(decode(png((1, 2, 3)), "p", "RGB"), (3, 4))[:, 2, 3].tolist() == [1, 2, 3]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n(touched) (w) file closefile\nshowpage\n"


@pytest.mark.parametrize("data", [b"", b"hello", EPS, png()[:40], png(fmt="JPEG")[:300]])
def test_what_is_not_a_picture_is_refused(data):
    with pytest.raises(UserError, match=r"cat\.png cannot be read .*; replace or remove this picture"):
        decode(data, "cat.png", "RGB")


def test_huge_pictures_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 47)
    with pytest.raises(UserError, match="8x6 is more than 47 pixels"):
        decode(png(), "p", "RGB")


def test_text_must_be_utf8():
    assert read_text("\ufeffé".encode(), "t") == "é"
    with pytest.raises(UserError, match="t cannot be read"):
        read_text(b"\xff\xfe", "t")


def test_the_cache_decodes_once_and_keeps_nothing_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    calls = []

    def fill(out):
        calls.append(1)
        out[:] = 7

    first = decoded("toy", "key", (4, 3), fill)
    second = decoded("toy", "key", (4, 3), fill)
    assert first.tolist() == second.tolist() == [[7] * 3] * 4
    assert len(calls) == 1
    assert isinstance(first.base, np.memmap) or isinstance(first, np.memmap)
    first[:] = 1  # copy on write: the file is not touched
    assert decoded("toy", "key", (4, 3), fill).max() == 7
    decoded("toy", "other key", (4, 3), fill)
    assert len(calls) == 2

    def fail(out):
        out[:1] = 5
        raise UserError("damaged")

    with pytest.raises(UserError, match="damaged"):
        decoded("toy", "third", (4, 3), fail)
    files = list((tmp_path / "pixels").iterdir())
    assert len(files) == 2
    for file in files:  # damaged in whatever way: made again
        file.write_bytes(file.read_bytes()[:-5])
    assert decoded("toy", "key", (4, 3), fill).tolist() == [[7] * 3] * 4
    assert len(calls) == 3


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the cache ran code",))


def test_the_cache_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    decoded("toy", "key", (2,), lambda out: out.fill(3))
    (file,) = (tmp_path / "pixels").iterdir()
    array = np.empty(2, object)
    array[0] = Bomb()
    for data in (pickle.dumps(Bomb()), None):
        if data is None:
            np.save(file, array, allow_pickle=True)
        else:
            file.write_bytes(data)
        assert decoded("toy", "key", (2,), lambda out: out.fill(3)).tolist() == [3, 3]


def test_without_a_cache_folder_the_pixels_live_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "file"))
    assert decoded("toy", "key", (2,), lambda out: out.fill(3)).tolist() == [3, 3]


def test_on_a_full_disk_the_pixels_live_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    assert decoded("toy", "key", (2,), lambda out: out.fill(3)).tolist() == [3, 3]
    assert list((tmp_path / "pixels").iterdir()) == []
