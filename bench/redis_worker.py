"""A trainer with Redis in a thread, as one would write it on redis-py: see `bench.worker`.

Who listens needs a second connection to publish on.
"""

import functools
import sys

import redis.asyncio

from bench.orders import CHANGES, OUTCOMES
from bench.redis_server import listening
from bench.roles import announce
from bench.worker import Worker, train


async def _answer(url: str, worker: Worker) -> None:
    async with redis.asyncio.from_url(url) as client, listening(client, CHANGES) as listener:
        announce()
        async for message in listener.listen():
            await worker.handle(message["data"])
            await client.publish(OUTCOMES, message["data"])
            if worker.ended.is_set():
                return


def main(url: str) -> None:
    """Train until told to leave."""
    train(functools.partial(_answer, url))


if __name__ == "__main__":
    main(*sys.argv[1:])
