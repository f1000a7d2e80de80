"""A trainer that reports many points as fast as it can, each time that it reads how many."""

import asyncio
import sys

import zloom
from bench.roles import DEADLINE, announce
from bench.trainer import ATTEMPT, RUN

METRICS = {f"metric_{number}": 0.5 + number for number in range(10)}
"""Of one step, as a training reports them; so many points."""

SUBJECT = "metrics"


def with_zloom(endpoint: str, rank: int, world_size: int) -> None:
    """Report a row a step; the weavelet sends them together."""
    with zloom.Weavelet(RUN, broker=endpoint, rank=rank, world_size=world_size, attempt=ATTEMPT) as weavelet:
        if not weavelet.wait_until_active(DEADLINE):
            raise TimeoutError(f"no broker at {endpoint}")
        announce()
        for line in sys.stdin:
            for _ in range(int(line) // len(METRICS)):
                weavelet.tick()
                weavelet.report(**METRICS)


async def with_nats(endpoint: str) -> None:
    """Publish a message a point."""
    import nats

    connection = await nats.connect(endpoint)
    announce()
    while line := await asyncio.to_thread(sys.stdin.readline):
        for step in range(int(line) // len(METRICS)):
            for name, value in METRICS.items():
                await connection.publish(SUBJECT, b"%s %d %f" % (name.encode(), step, value))
        await connection.flush()
    await connection.close()


def main(kind: str, endpoint: str, rank: str, world_size: str) -> None:
    """Report until the input ends; `kind` is zloom or nats."""
    if kind == "zloom":
        with_zloom(endpoint, int(rank), int(world_size))
    else:
        asyncio.run(with_nats(endpoint))


if __name__ == "__main__":
    main(*sys.argv[1:])
