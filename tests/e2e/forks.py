"""Processes that begin with torch and Lightning imported, which otherwise takes most of a test's time."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

FORKS = multiprocessing.get_context("forkserver")
"""Its processes are forked from one that has imported these and done nothing else."""

# All tests of a process share one such server, and what it imports is settled when it starts.
FORKS.set_forkserver_preload(["torch", "lightning.pytorch", "zloom.lightning"])


@contextlib.contextmanager
def as_by_torchrun(
    main: Callable[[], None],
    arguments: list[str],
    port: int,
    environment: dict[str, str],
    world_size: int = 2,
) -> Iterator[list[BaseProcess]]:
    """Run a script's `main` on some ranks, as torchrun does; who is left in the end is killed."""
    common = environment | {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": str(port)}
    processes: list[BaseProcess] = []
    for rank in range(world_size):
        place = common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
        processes.append(FORKS.Process(target=_script, args=(main, arguments, place)))
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _script(main: Callable[[], None], arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv[1:] = arguments
    main()
