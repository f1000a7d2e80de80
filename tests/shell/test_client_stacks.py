"""Stacks of a run of which a rank is gone."""

import asyncio
from pathlib import Path

import pytest

import zloom
from tests.support import DEADLINE, running_broker
from zloom.errors import Refused
from zloom.model import GONE


async def active(weavelet: zloom.Weavelet) -> None:
    assert await asyncio.to_thread(weavelet.wait_until_active, DEADLINE)


async def test_a_rank_that_is_gone_is_told_with_how_it_left(tmp_path: Path) -> None:
    def rank(number: int, endpoint: str) -> zloom.Weavelet:
        return zloom.Weavelet("lm", broker=endpoint, attempt="one", rank=number, world_size=2)

    async with running_broker(tmp_path) as broker, zloom.connect(broker.endpoint) as operator:
        with rank(0, broker.endpoint) as first:
            await active(first)
            for _ in range(2):  # of the two that were rank 1 the last one is told
                with rank(1, broker.endpoint) as second:
                    await active(second)
                async with asyncio.timeout(DEADLINE):
                    while sum(each.state not in GONE for each in await operator.replicas("lm")) > 1:
                        pass  # its goodbye is on its way
            there, gone = await operator.stacks("lm")
            assert (there.rank, there.reason) == (0, "")
            assert there.threads
            assert (gone.rank, gone.state, gone.threads) == (1, "finished", [])
            with pytest.raises(Refused, match="no rank 1 that is there: finished; its ranks are: 0"):
                await operator.stacks("lm", rank=1)
