"""Worlds of a few processes in one test: gloo over a file, so no ports and no torchrun."""

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 300  # seconds that a world of a test may last
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch.distributed", "metarl.agents.maml_trpo", "metarl.agents.promp"])


def world(size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(ranks, *args)` gives on every rank, in their order; EOFError for a rank that died.

    What it raises is raised here. `work` lies in a file that other processes can import, so beside this one.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
        processes = [
            CONTEXT.Process(target=_rank, args=(rank, size, f"{folder}/store", writer, work, args))
            for rank, (_, writer) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, writer in pipes:
            writer.close()
        results = [_answer(reader) for reader, _ in pipes]
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    if wrong := [result for result in results if isinstance(result, Exception) and not isinstance(result, EOFError)]:
        raise wrong[0]
    return results


def _answer(reader: Any) -> Any:
    try:
        return reader.recv() if reader.poll(LONGEST) else TimeoutError("no answer")
    except EOFError as died:
        return died


def _rank(rank: int, size: int, store: str, writer: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as distributed

    from metarl.ranks import Ranks

    torch.set_num_threads(1)
    for name in ("RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    if size > 1:
        distributed.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=size)
    try:
        result = work(Ranks(rank, size), *args)
    except Exception as error:
        error.add_note(traceback.format_exc())
        result = error
    writer.send(result)
