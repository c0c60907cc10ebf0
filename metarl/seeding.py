"""Keyed random streams: no global seed, no hidden state.

A `Key` names a stream by (seed, purpose, iteration, task, episode, ...). The same key always gives
the same numbers, whatever ran before, on however many threads; so a resumed run needs to remember
its iteration and nothing else. Streams come from Philox, a counter-based generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011), keyed by a hash of the path.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random, getstate, setstate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Part = int | str
PLACE = 2**128  # counts of the generator from one place of a stream to the next


def _spelled(part: Part) -> str:
    """A part with its kind in front, so that 1 and "1" differ; numpy integers are integers."""
    return f"s{part.replace(chr(31), chr(31) * 2)}" if isinstance(part, str) else f"i{int(part)}"


@dataclass(frozen=True)
class Key:
    """The name of a random stream.

    Attributes:
        seed: the run's seed, any integer.
        path: what the stream is for, e.g. `("support", iteration, task)`.

    Example:
        >>> key = Key(0)("support", 3)
        >>> key("task", 7).numpy().random() == Key(0)("support", 3, "task", 7).numpy().random()
        True
    """

    seed: int
    path: tuple[Part, ...] = ()

    def __call__(self, *parts: Part) -> Key:
        """The key below this one, `parts` appended to its path."""
        return Key(self.seed, self.path + parts)

    def digest(self) -> bytes:
        """16 bytes that identify the stream, equal on every platform and in every version."""
        text = "\x1f".join(_spelled(part) for part in (self.seed, *self.path))
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def integer(self) -> int:
        """A seed in [0, 2^63) for libraries that want one number."""
        return int.from_bytes(self.digest()[:8], "little") >> 1

    def philox(self) -> np.random.Philox:
        """The raw bit generator, at the start of its stream."""
        return np.random.Philox(key=int.from_bytes(self.digest(), "little"))

    def numpy(self) -> np.random.Generator:
        """A NumPy generator at the start of the stream."""
        return np.random.Generator(self.philox())

    def at(self, places: Iterable[int]) -> Iterator[np.random.Generator]:
        """For each place of the stream, 0, 1, ..., a NumPy generator that begins there.

        Places never overlap. All are one generator, moved: five times quicker than a key for each, but each serves
        only until the next is asked for.
        """
        bits = self.philox()
        start, generator = bits.state, np.random.Generator(bits)
        for place in places:
            bits.state = start
            bits.advance(int(place) * PLACE)
            yield generator

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch generator at the start of the stream."""
        import torch  # where it is needed: families and lists do without

        return torch.Generator(device).manual_seed(self.integer())

    def uniforms(self) -> Callable[[tuple[int, ...]], NDArray[np.float64]]:
        """A function from a shape to uniform numbers in [0, 1); each call continues the stream.

        They are made from the raw Philox bits: frozen across NumPy versions and platforms.
        """
        bits = self.philox()

        def draw(shape: tuple[int, ...]) -> NDArray[np.float64]:
            raw = bits.random_raw(math.prod(shape)) >> np.uint64(11)
            return (raw.astype(np.float64) * 2.0**-53).reshape(shape)

        return draw

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The first numbers of `uniforms`; the same at every call."""
        return self.uniforms()(shape)


class Rows:
    """Random numbers for T x E rows in which the E rows of each task have a generator of their own.

    It draws as `numpy.random.Generator` does; the first axis of whatever is drawn is the rows.

    Args:
        generators: T, one a task.
        replicas: E.
    """

    def __init__(self, generators: Sequence[np.random.Generator], replicas: int) -> None:
        self._generators = generators
        self._replicas = replicas

    def _drawn(self, draw: Callable[[np.random.Generator, slice], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The numbers of all tasks; `draw` is given a task's generator and its rows."""
        starts = range(0, len(self._generators) * self._replicas, self._replicas)
        pairs = zip(self._generators, starts, strict=True)
        return np.concatenate([draw(own, slice(start, start + self._replicas)) for own, start in pairs])

    def random(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), `(T * E, ...)`."""
        return self._drawn(lambda own, _: own.random((self._replicas, *size[1:])))

    def standard_normal(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal numbers, `(T * E, ...)`."""
        return self._drawn(lambda own, _: own.standard_normal((self._replicas, *size[1:])))

    def beta(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draws from Beta(a, b), `(T * E, ...)` as `a` and `b` are."""
        return self._drawn(lambda own, rows: own.beta(a[rows], b[rows]))

    def standard_gamma(self, shape: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draws from Gamma(shape), `(T * E, ...)` as `shape` is."""
        return self._drawn(lambda own, rows: own.standard_gamma(shape[rows]))


AnyGenerator = np.random.Generator | Rows  # what strategies draw from


@contextmanager
def keyed_globals(key: Key) -> Iterator[None]:
    """Give code that draws from global generators a stream of its own; then put theirs back.

    For what takes no generator: Stable-Baselines3, `torch.nn.Dropout`, a module that a user brings.

    Args:
        key: of NumPy's, torch's (the CPU's, and CUDA's once it is in use) and Python's global generators
            within the block. They belong to the process, so one thread at a time may borrow them.
    """
    import torch

    numpys, pythons = np.random.get_state(), getstate()  # noqa: NPY002 - kept, to be put back
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    devices = range(torch.cuda.device_count() if in_use else 0)
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(key("torch").torch().get_state())
        for device in devices:
            torch.cuda.set_rng_state(key("torch").torch(f"cuda:{device}").get_state(), device)
        np.random.set_state({**np.random.MT19937(key("numpy").integer()).state})  # noqa: NPY002 - to others' code
        setstate(Random(key("python").integer()).getstate())
        try:
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002 - as it was
            setstate(pythons)


def draws(function: Callable[[], object]) -> bool:
    """Whether a call draws from a global generator of NumPy, torch (the CPU's) or Python; their states stay."""
    with keyed_globals(Key(0)("draws")):
        before = _global_states()
        function()
        return _global_states() != before


def _global_states() -> tuple[object, ...]:
    import torch

    numpys: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - to compare
    words = numpys["state"]["key"].tobytes(), numpys["state"]["pos"], numpys["has_gauss"]
    return (*words, torch.get_rng_state().numpy().tobytes(), getstate())
