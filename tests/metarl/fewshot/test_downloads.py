"""Downloads against a server on this machine: resume, mirrors, checksums, limits; nothing half-installed."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.datasets.downloads import Remote, cache_folder, data_folder, fetch, obtain
from metarl.seeding import Key

BODY = Key(0)("body").numpy().integers(0, 256, 300_000, dtype=np.uint8).tobytes()
MD5 = "md5:" + hashlib.md5(BODY, usedforsecurity=False).hexdigest()
LIMIT = 1 << 20


@dataclass
class Site:
    """What the server does, and what it was asked."""

    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Answer(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if self.path == "/missing":
                self.send_error(404)
                return
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", f"{state.url}/file")
                self.end_headers()
                return
            if self.path == "/norange":
                start, wanted = 0, None
            body = {"/wrong": b"x" * len(BODY), "/large": b"x" * (2 * LIMIT)}.get(self.path, BODY)
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if self.path not in ("/unsized", "/unsizedlarge"):
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if self.path == "/unsizedlarge":
                body = b"x" * (2 * LIMIT)
            stop = start + 100_000 if self.path == "/breaks" else len(body)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[start:stop])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def remote(site, *paths, checksum=MD5):
    return Remote("set/file.zip", tuple(f"{site.url}/{path}" for path in paths), checksum, LIMIT)


@pytest.mark.parametrize("path", ["file", "moved", "unsized", "norange"])
def test_a_file_arrives_whole(site, tmp_path, path):
    seen = []
    fetch(remote(site, path), tmp_path / "file", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert seen[-1] == (len(BODY), None if path == "unsized" else len(BODY))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_sha256_is_understood_too(site, tmp_path):
    fetch(remote(site, "file", checksum="sha256:" + hashlib.sha256(BODY).hexdigest()), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_an_interrupted_download_resumes_where_it_stopped(site, tmp_path):
    with pytest.raises(UserError, match="stopped after 100000 of 300000"):
        fetch(remote(site, "breaks"), tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size == 100_000
    fetch(remote(site, "file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked == [("/breaks", None), ("/file", "bytes=100000-")]


def test_the_next_mirror_continues(site, tmp_path):
    fetch(remote(site, "missing", "breaks", "file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert [wanted for _, wanted in site.asked] == [None, None, "bytes=100000-"]


def test_a_mirror_without_ranges_starts_again(site, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    fetch(remote(site, "norange"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked == [("/norange", "bytes=1000-")]


@pytest.mark.parametrize("left", [b"not the beginning", b"x" * 400_000])
def test_a_wrong_part_is_thrown_away(site, tmp_path, left):
    (tmp_path / "file.part").write_bytes(left)
    fetch(remote(site, "file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked[-1] == ("/file", None)


def test_a_complete_part_only_needs_its_checksum(site, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY)
    fetch(remote(site, "file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("wrong", "wrong checksum"),
        ("large", "larger than expected"),
        ("unsizedlarge", "larger than expected"),
        ("missing", "404"),
    ],
)
def test_what_is_not_the_file_is_never_installed(site, tmp_path, path, message):
    seen = []
    with pytest.raises(UserError, match=message):
        fetch(remote(site, path), tmp_path / "file", lambda done, total: seen.append(done))
    assert list(tmp_path.iterdir()) == []
    assert bool(seen) == (path in ("wrong", "unsizedlarge"))  # what announces its size is not even begun


def test_only_http_is_spoken(tmp_path):
    (tmp_path / "local").write_bytes(BODY)
    with pytest.raises(UserError, match="not an http address"):
        fetch(Remote("x", (f"file://{tmp_path / 'local'}",), MD5, LIMIT), tmp_path / "file")


def test_nobody_answers(tmp_path):
    with pytest.raises(UserError, match="no mirror served it"):
        fetch(Remote("x", ("http://127.0.0.1:9/x",), MD5, LIMIT), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_obtain_fetches_once_into_the_data_folder(site, tmp_path, monkeypatch):
    monkeypatch.delenv("METARL_OFFLINE", raising=False)
    first = obtain(tmp_path, remote(site, "file"), "layout")
    assert first == tmp_path / "set" / "file.zip"
    assert obtain(tmp_path, remote(site, "missing"), "layout") == first
    assert len(site.asked) == 1


def test_offline_nothing_is_asked_and_the_layout_is_told(site, tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_OFFLINE", "1")
    with pytest.raises(UserError, match=r"file\.zip is missing and METARL_OFFLINE .* expected: LAYOUT"):
        obtain(tmp_path, remote(site, "file"), "LAYOUT")
    assert site.asked == []
    assert list(tmp_path.iterdir()) == []


def test_failure_tells_the_layout(site, tmp_path, monkeypatch):
    monkeypatch.delenv("METARL_OFFLINE", raising=False)
    with pytest.raises(UserError, match=r"is missing: no mirror served it .*404.*; expected: LAYOUT"):
        obtain(tmp_path, remote(site, "missing"), "LAYOUT")
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        obtain(tmp_path / "blocked", remote(site, "file"), "LAYOUT")


def test_folders_come_from_the_argument_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder(None) == tmp_path / "data"
    monkeypatch.delenv("METARL_DATA")
    assert data_folder(None) == tmp_path / "cache" / "data"
    monkeypatch.delenv("METARL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "metarl"
