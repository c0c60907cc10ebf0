"""Features on disk, by what they are features of: the numbers of an image, and the encoder that saw it.

One SQLite file, so an entry is whole or not there, and processes may share it. An entry has a checksum, and is computed
again where that does not fit; a file that is no database is begun anew. Beyond its limit the longest unused go.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.fewshot.datasets.downloads import cache_folder
from metarl.fewshot.datasets.reading import DataWarning

LIMIT = 1 << 30  # bytes of features
CHECK = 8  # bytes of an entry's checksum
AT_ONCE = 500  # keys that one query asks for
TABLE = "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL)"


def default_place() -> Path:
    """The file of features in the user's cache folder."""
    return cache_folder() / "features.sqlite"


@dataclass(frozen=True)
class FeatureCache:
    """Features remembered in a file.

    Attributes:
        path: of the file.
        limit: bytes of features at most.
    """

    path: Path = field(default_factory=default_place)
    limit: int = LIMIT

    def features(self, encoder: bytes, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Features `(B, F)` of images, computed where they are not remembered; so are equal images once.

        Args:
            encoder: what tells it from others.
            images: `(B, C, H, W)`.
            compute: from images to features.
        """
        keys = [_key(encoder, image) for image in images]
        known = self._known(keys)
        new = {key: i for i, key in enumerate(keys) if key not in known}
        if new:
            made = compute(images[list(new.values())]).float().cpu().numpy()
            fresh = dict(zip(new, made, strict=True))
            self._remember(fresh)
            known |= fresh
        return torch.from_numpy(np.stack([known[key] for key in keys])).to(images.device)

    def _known(self, keys: list[bytes]) -> dict[bytes, NDArray[np.float32]]:
        known: dict[bytes, NDArray[np.float32]] = {}
        with self._opened() as database:
            if database is None:
                return known
            wanted = list(dict.fromkeys(keys))
            for start in range(0, len(wanted), AT_ONCE):
                some = wanted[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, value in database.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", some):
                    if (values := _values(key, value)) is not None:
                        known[key] = values
                database.execute(f"UPDATE features SET used = ? WHERE key IN ({marks})", [time.time(), *some])
        return known

    def _remember(self, fresh: dict[bytes, NDArray[np.float32]]) -> None:
        with self._opened() as database:
            if database is None:
                return
            now = time.time()
            rows = [(key, _entry(key, values), now) for key, values in fresh.items()]
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
            total = database.execute("SELECT COALESCE(SUM(LENGTH(value)), 0) FROM features").fetchone()[0]
            while total > self.limit:
                oldest = database.execute("SELECT key, LENGTH(value) FROM features ORDER BY used LIMIT 256").fetchall()
                for key, length in oldest:
                    if total > self.limit:
                        database.execute("DELETE FROM features WHERE key = ?", (key,))
                        total -= length

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        """The database in a transaction; None where it cannot be had, and features are computed without."""
        database = self._database()
        try:
            if database is None:
                yield None
            else:
                with database:
                    yield database
        except sqlite3.OperationalError:  # it is locked for long, or the disk is full
            return
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
        finally:
            if database is not None:
                database.close()

    def _database(self) -> sqlite3.Connection | None:
        for attempt in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(self.path, timeout=10)
                database.execute(TABLE)
                return database
            except sqlite3.OperationalError:
                return None
            except sqlite3.DatabaseError as error:
                if attempt == 0:
                    self._begin_anew(error)
            except OSError:
                return None
        return None

    def _begin_anew(self, error: Exception) -> None:
        warnings.warn(f"{self.path} is damaged ({error}): features are computed again", DataWarning, stacklevel=4)
        with contextlib.suppress(OSError):
            self.path.unlink()


def _key(encoder: bytes, image: Tensor) -> bytes:
    made = hashlib.sha256(encoder)
    made.update(f"{tuple(image.shape)} {image.dtype}".encode())
    made.update(image.detach().cpu().contiguous().numpy().tobytes())
    return made.digest()


def _entry(key: bytes, values: NDArray[np.float32]) -> bytes:
    data = np.ascontiguousarray(values, np.float32).tobytes()
    return hashlib.sha256(key + data).digest()[:CHECK] + data


def _values(key: bytes, entry: object) -> NDArray[np.float32] | None:
    """The features of an entry; None where it is damaged."""
    if not isinstance(entry, bytes) or hashlib.sha256(key + entry[CHECK:]).digest()[:CHECK] != entry[:CHECK]:
        return None
    return np.frombuffer(entry[CHECK:], np.float32).copy()
