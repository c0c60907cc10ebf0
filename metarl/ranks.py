"""The processes that torchrun started for one training, and what they tell one another.

Each of R processes, a rank, works on its share of an iteration's tasks; what belongs to all tasks is a sum over ranks,

    sum_i f_i  =  sum_r  sum_{i of rank r} f_i,

taken by torch.distributed, gloo for tensors on the CPU and NCCL for those on a GPU. All ranks get the same bits, so all
take the same step, and none sends parameters. `Ranks.sum` is an all-reduce: against one process the order of the sum
differs, and so its last bits. `Ranks.sum_in_order` adds from rank to rank what one process adds from task to task: the
same bits at any number of ranks, for learners that amplify the last ones (conjugate gradient: a billionfold).

A training in one process has the ranks `ALONE`: nothing of torch.distributed is imported and nothing changes.
"""

from __future__ import annotations

import datetime
import functools
import operator
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from metarl.errors import NonFiniteError, UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

Result = TypeVar("Result")
JOIN = datetime.timedelta(minutes=5)  # for all ranks to come; torchrun starts them together
TIMEOUT = datetime.timedelta(minutes=30)  # of a collective: rank 0 may judge or film in between; torch's own, for gloo
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of the environment; torchrun sets them


class LostRankError(RuntimeError):
    """Another process of the training is gone, so this one cannot go on; what torchrun restarts does."""


class DriftError(RuntimeError):
    """The processes of a training have different states, though all should have taken the same steps."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, as one of them sees them.

    Every method but `share` and `number` is called by all ranks, in the same order.

    >>> ranks = Ranks(rank=1, size=4)
    >>> [Ranks(rank, 4).share(10) for rank in range(4)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]

    Attributes:
        rank: of this process, from 0; rank 0 writes and speaks.
        size: how many there are.
        local: this one's place among those of its machine, and so the GPU it takes.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's share of n tasks: a part in a row, as many as another's or one more.

        Raises:
            ValueError: there are fewer tasks than ranks.
        """
        if n < self.size:
            raise ValueError(f"{n} tasks cannot be shared out over {self.size} ranks")
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sum(self, *tensors: Tensor) -> list[Tensor]:
        """The sums over ranks of tensors of one type, the same bits on every rank, in one message.

        Outside of autograd: the sums have no gradient. In one process they are the tensors as they came.

        Raises:
            LostRankError: another rank is gone.
        """
        if self.size == 1:
            return list(tensors)
        import torch

        if len({(each.dtype, each.device) for each in tensors}) > 1:
            raise ValueError(f"one message holds one type on one device: {[(t.dtype, t.device) for t in tensors]}")
        flat = torch.cat([each.detach().reshape(-1) for each in tensors])
        if own := flat.device.type not in ("cpu", "cuda"):  # no backend sums there
            device, flat = flat.device, flat.cpu()
        with self._peers() as distributed:
            distributed.all_reduce(flat)
        if own:
            flat = flat.to(device)
        parts = torch.split(flat, [each.numel() for each in tensors])
        return [part.view_as(each) for part, each in zip(parts, tensors, strict=True)]

    def sum_in_order(self, parts: Sequence[Tensor], *, adds: bool = True) -> Tensor:
        """The sum of all parts of all ranks, from left to right, rank 0's first: the bits that one process gets.

        The sum so far goes from rank to rank, and from the last to all: as many messages in a row as there are ranks,
        where an all-reduce round a ring has twice as many, of a part of the numbers each.

        Args:
            parts: at least one, of one shape, type and device.
            adds: whether this rank's belong to the sum.

        Raises:
            LostRankError: another rank is gone.
        """
        rest = list(parts)
        if self.size == 1:
            return functools.reduce(operator.add, rest)
        import torch

        with self._peers() as distributed:
            if self.rank > 0:
                before = torch.empty_like(rest[0], requires_grad=False, memory_format=torch.contiguous_format)
                distributed.recv(before, self.rank - 1)
                rest = [before, *(rest if adds else ())]
            total = functools.reduce(operator.add, rest).detach().contiguous()
            if self.rank < self.size - 1:
                distributed.send(total, self.rank + 1)
            distributed.broadcast(total, self.size - 1)
        return total

    def sums(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sums over ranks of named numbers, in double precision, in one message."""
        if self.size == 1:
            return dict(numbers)
        import torch

        [total] = self.sum(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, total.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in their order, on all of them; anything that pickles."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._peers() as distributed:
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on all of them; anything that pickles. The others' is not looked at."""
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        with self._peers() as distributed:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.most(int(flag))[0])

    def most(self, *numbers: int) -> list[int]:
        """The largest of every rank's first number, second number, ..., in one message."""
        if self.size == 1:
            return list(numbers)
        import torch

        largest = torch.tensor(numbers)
        with self._peers() as distributed:
            distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return [int(number) for number in largest]

    def together(self, function: Callable[[], Result], *, tasks: int | None = None, own: slice | None = None) -> Result:
        """What the function gives on this rank; where it raises on any rank, all raise the same error.

        The function calls no method of these ranks: one that fails would leave the others waiting.

        Args:
            function: this rank's part of something.
            tasks: of the whole batch, where the function works on a part of it and counts tasks from 0 in that: a
                NonFiniteError names them by their places in the whole batch.
            own: that part; None for `share(tasks)`.

        Raises:
            Exception: the error of the first rank that raised one.
        """
        error: Exception | None = None
        try:
            result = function()
        except Exception as raised:
            error = raised
            if tasks is not None and isinstance(error, NonFiniteError):
                self.number(error, tasks, own)
        self.agree(error)
        return result

    def first(self, function: Callable[[], Result]) -> Result:
        """What the function gives on rank 0, where alone it is called, on all of them; or the error it raises there."""
        result, error = None, None
        if self.leads:
            try:
                result = function()
            except Exception as raised:
                error = raised
        self.agree(error)
        returned: Result = self.broadcast(result)
        return returned

    def agree(self, error: Exception | None) -> None:
        """Raise the error of the first rank that has one, on every rank.

        A UserError or NonFiniteError is then `everywhere`: rank 0 says it for all.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return
        if not self.any(error is not None):
            return
        errors = self.gather(None if error is None else _portable(error))
        first = next(rank for rank, each in enumerate(errors) if each is not None)
        shared: Exception = error if error is not None and first == self.rank else errors[first]
        if isinstance(shared, UserError | NonFiniteError):
            shared.everywhere = True
        raise shared

    def number(self, error: NonFiniteError, tasks: int, own: slice | None = None) -> None:
        """Name an error's tasks, counted in this rank's part, by their places in the whole batch of `tasks`."""
        part = self.share(tasks) if own is None else own
        start = part.start if error.row is None else 0  # an environment's tasks know their places
        error.tasks, error.of = [start + task for task in error.tasks], tasks

    def leave(self) -> None:
        """Part from the others; the last thing that a process of torchrun does with them."""
        if self.size > 1:
            import torch.distributed as distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()

    @contextmanager
    def _peers(self) -> Iterator[Any]:
        """torch.distributed, joined; an error that it raises says that a rank is gone."""
        import torch.distributed as distributed

        if not distributed.is_initialized():
            _join(self.size)
        try:
            yield distributed
        except (RuntimeError, distributed.DistError) as error:
            raise LostRankError(
                f"rank {self.rank} of {self.size} lost another process of this training, which stopped: torchrun "
                "--max-restarts N goes on from the last checkpoint, and so does --resume"
            ) from error


ALONE = Ranks()


def present() -> Ranks:
    """The ranks that torchrun's environment describes; `ALONE` where there is none.

    Raises:
        UserError: the environment is not whole, or is no rank of a world.
    """
    texts = {name: os.environ.get(name) for name in NEEDED}
    if texts["RANK"] is None and texts["WORLD_SIZE"] is None:
        return ALONE
    rank, size, local = _number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK", "0")
    if not rank < size:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {size}, which it must be below; {_LAUNCH}")
    if size > 1 and (missing := [name for name, text in texts.items() if not text]):
        raise UserError(f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set; {_LAUNCH}")
    return Ranks(rank, size, local)


_LAUNCH = "start the processes with torchrun, which sets all of them, or unset RANK and WORLD_SIZE"


def _number(name: str, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    if text is None or not text.isascii() or not text.isdigit():
        said = "not set" if text is None else repr(text)
        raise UserError(f"{name} is {said}, though other variables of torchrun are set; {_LAUNCH}")
    return int(text)


def _join(size: int) -> None:
    """Join the other ranks of torchrun's environment."""
    import torch
    import torch.distributed as distributed
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, _ = next(rendezvous("env://", timeout=JOIN))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = _fresh(store, rank)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"not all {size} processes of this training came ({one_line(error)}): {_LAUNCH}") from None
    store.set_timeout(TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


def _fresh(agents: Store, rank: int) -> Store:
    """A store of these processes alone, on rank 0, whose port the others read in the store of torchrun's agent.

    The agent's own stays when it starts processes again, with the addresses in it of those that are gone: torch 2.13
    would wait for them. A port that nobody listens at is such an address, and is read again.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not named in its __all__

    host, where = os.environ["MASTER_ADDR"], "metarl/port"
    if rank == 0:
        mine = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=JOIN)
        agents.set(where, str(mine.port))
        return mine
    latest = time.monotonic() + JOIN.total_seconds()
    while True:
        port = int(agents.get(where))
        try:
            socket.create_connection((host, port), timeout=JOIN.total_seconds()).close()
            return TCPStore(host, port, is_master=False, timeout=JOIN)
        except ConnectionRefusedError:
            if time.monotonic() > latest:
                raise TimeoutError("rank 0 has not come") from None
            time.sleep(0.05)


def _portable(error: Exception) -> Exception:
    """The error as another process can have it."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return copy
