"""Many weavelets and operators in one process, which ends as it is told; run by the end-to-end tests.

It prints a line when all are connected, reads one, leaves mail behind that no broker takes, prints the time,
and ends: by an exception or by `sys.exit`, with all of them open or in the blocks of their context managers.
"""

import asyncio
import contextlib
import sys
import time
from typing import NoReturn

import zloom

RANKS = 6
MAIL = b"x" * 500_000
"""Four of these do not fit into the buffers of a connection whose other end is stopped."""

Crowd = list[zloom.Weavelet | zloom.AsyncWeavelet | zloom.SyncOperator]


def end(crowd: Crowd, ending: str) -> NoReturn:
    print("connected", flush=True)
    sys.stdin.readline()
    for _ in range(4):
        for each in crowd:
            each.publish("net/mail", MAIL)
    print(time.time(), flush=True)
    if ending == "exit":
        sys.exit(3)
    raise ValueError("the loss diverged")


async def with_loop(broker: str, crowd: Crowd, ending: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(zloom.connect(broker))
        for rank in range(RANKS):
            weavelet = zloom.AsyncWeavelet("async", broker=broker, attempt="one", rank=rank, world_size=RANKS)
            await stack.enter_async_context(weavelet)
            assert await weavelet.wait_until_active(20)
            crowd.append(weavelet)
        end(crowd, ending)


def main() -> None:
    broker, closing, ending = sys.argv[1:]
    crowd: Crowd = []
    with contextlib.ExitStack() as stack:
        crowd += [zloom.connect_sync(broker) for _ in range(2)]
        for rank in range(RANKS):
            weavelet = zloom.Weavelet("plain", broker=broker, attempt="one", rank=rank, world_size=RANKS)
            weavelet.start()
            assert weavelet.wait_until_active(20)
            crowd.append(weavelet)
        if closing == "open":
            end(crowd, ending)
        for each in crowd:
            stack.callback(each.close)
        asyncio.run(with_loop(broker, crowd, ending))


if __name__ == "__main__":
    main()
