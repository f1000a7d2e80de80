"""Feeds: drops are counted, a cancelled reader loses nothing, and an end is seen."""

import asyncio

import pytest

from zloom.client.feeds import FEED_LIMIT, Feed
from zloom.errors import Refused
from zloom.messages import Happened, Own
from zloom.model import Event


def happened(seq: int) -> Happened:
    return Happened(seq=seq, event=Event("joined", "lm"))


def own(sender: str, seq: int) -> Own:
    return Own(topic="net/a", payload=b"", sender=sender, sender_seq=seq)


@pytest.fixture
def closed() -> list[Feed[int]]:
    return []


@pytest.fixture
async def feed(closed: list[Feed[int]]) -> Feed[int]:
    return Feed(b"watch/a/", lambda _, m: m.seq if isinstance(m, Happened) else None, closed.append)


async def test_a_reader_gets_what_comes_and_waits_for_more(feed: Feed[int]) -> None:
    feed.put(b"watch/a/", happened(1))
    feed.put(b"watch/a/", own("x", 1))  # not for this reader
    feed.put(b"watch/a/", happened(2))
    assert [await anext(feed), await anext(feed)] == [1, 2]
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0)
    feed.put(b"watch/a/", happened(3))
    assert await waiting == 3


async def test_a_cancelled_reader_loses_nothing(feed: Feed[int]) -> None:
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0)
    feed.put(b"watch/a/", happened(1))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await anext(feed) == 1


async def test_a_slow_reader_loses_the_oldest_and_can_tell(feed: Feed[int]) -> None:
    for seq in range(1, FEED_LIMIT + 4):
        feed.put(b"watch/a/", happened(seq))
    assert (feed.dropped, feed.missed) == (3, 0)
    assert await anext(feed) == 4


async def test_another_life_of_the_broker_is_no_gap_in_a_feed(feed: Feed[int]) -> None:
    feed.put(b"watch/a/", happened(1))
    feed.restart()
    feed.put(b"watch/a/", happened(9))
    assert feed.missed == 0


async def test_closing_ends_the_iteration_once_it_is_empty(feed: Feed[int], closed: list[Feed[int]]) -> None:
    feed.put(b"watch/a/", happened(1))
    feed.close()
    feed.close()
    assert [item async for item in feed] == [1]
    assert closed == [feed]


async def test_an_end_with_a_reason_raises_it(feed: Feed[int]) -> None:
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0)
    feed.end(Refused("not_allowed", "no"))
    with pytest.raises(Refused, match="no"):
        await waiting
    with pytest.raises(Refused, match="no"):
        await feed.ready()


async def test_the_context_waits_for_the_broker_and_ends_the_subscription(
    feed: Feed[int], closed: list[Feed[int]]
) -> None:
    entering = asyncio.ensure_future(feed.__aenter__())
    await asyncio.sleep(0)
    assert not entering.done()
    feed.confirm()
    assert await entering is feed
    await feed.__aexit__(None, None, None)
    assert closed == [feed]


async def test_a_context_that_is_given_up_ends_the_subscription_too(
    feed: Feed[int], closed: list[Feed[int]]
) -> None:
    entering = asyncio.ensure_future(feed.__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert closed == [feed]
