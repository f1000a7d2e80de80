"""Finding the attempt of a run that trains, or waiting until one does."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zloom.client.feeds import Feed
from zloom.client.operator import Observation, Operator
from zloom.errors import Refused
from zloom.model import GONE, RunStatus

PAUSE = 1.0
"""Seconds from one question to the next: a run of 1,000 replicas is heard of thousands of times in one."""

START_IT, START_ONE = "start it, or ", "start one, or "
"""What helps besides waiting."""

OnWait = Callable[[str], object]
"""Told what is waited for, and again whenever that has become something else."""

OnSeen = Callable[[Sequence[Observation]], object]
"""Told what came, once a `PAUSE` at least, be it nothing."""


async def training_attempt(
    operator: Operator, run: str, *, attempt: str = "", without: str = "", wait: OnWait | None = None
) -> RunStatus:
    """Return the newest attempt of a run of which all ranks are there and have begun a step.

    Before that a trainer may still declare keys.

    Args:
        operator: Asks.
        run: Name of the run.
        attempt: Only this one.
        without: Not this one.
        wait: Wait for it, for ever if need be; None waits for nothing.

    Raises:
        Refused: `no_replica`: there is none, and nothing is waited for.
    """
    search = Search(operator, run, attempt=attempt, without=without)
    if wait is None:
        return await search.now()
    async with operator.watch(run) as feed:
        return await search.wait(feed, wait)


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why there is no attempt that trains, and what helps besides waiting."""

    why: str
    advice: str = ""


class Search:
    """For the attempt that `training_attempt` returns; the arguments are explained there."""

    def __init__(self, operator: Operator, run: str, *, attempt: str = "", without: str = "") -> None:
        self._operator = operator
        self._run = run
        self._attempt = attempt
        self._without = without

    async def now(self) -> RunStatus:
        """Return the attempt that trains now.

        Raises:
            Refused: `no_replica`: there is none.
        """
        found = await self._find()
        if isinstance(found, _Lack):
            raise Refused("no_replica", f"{found.why}; {found.advice}wait for it with --wait")
        return found

    async def wait(
        self, feed: Feed[Observation], on_wait: OnWait, on_seen: OnSeen = lambda seen: None
    ) -> RunStatus:
        """Return the attempt that trains, once there is one.

        Args:
            feed: Of the run. It is read all the time, so that it drops nothing, however long this takes.
            on_wait: Told what is waited for.
            on_seen: Told what is read.

        Raises:
            StopAsyncIteration: The feed was closed.
        """
        told = ""
        while True:
            found = await self._find()
            if not isinstance(found, _Lack):
                return found
            if found.why != told:
                on_wait(found.why)
                told = found.why
            while not await _hear(feed, on_seen):
                pass  # what stands between two words of the run is as it was

    async def _find(self) -> RunStatus | _Lack:
        runs = await self._operator.runs(self._run)
        wanted = [
            each for each in runs if self._attempt in ("", each.attempt) and each.attempt != self._without
        ]
        whole = [each for each in wanted if each.live >= each.world_size]
        if whole:
            newest = whole[-1]
            if await self._has_begun(newest):
                return newest
            return _Lack(f"{_name(newest)} has not begun its first step")
        if not runs:
            return _Lack(f"there is no run {self._run}", START_IT)
        if not wanted:
            which = f"attempt {self._attempt}" if self._attempt else "attempt"
            other = f" other than {self._without}, which was recorded" if self._without else ""
            return _Lack(f"there is no {which} of {self._run}{other}", START_ONE if other else START_IT)
        newest = wanted[-1]
        if not newest.live:
            if self._attempt or len(wanted) == len(runs):
                return _Lack(f"no rank of {_name(newest)} is live", START_IT)
            # The newest of the others is an old one, which nobody who has just recorded has in mind.
            recorded = [each for each in runs if each not in wanted and each.live]
            other = " but the recorded one" if recorded else ""
            return _Lack(f"no attempt of {self._run}{other} is live", START_ONE)
        return _Lack(f"not all {newest.world_size} ranks of {_name(newest)} are live")

    async def _has_begun(self, status: RunStatus) -> bool:
        replicas = await self._operator.replicas(status.run, attempt=status.attempt)
        there = [each for each in replicas if each.state not in GONE]
        return len(there) >= status.world_size and all(
            (each.step or 0) > 0 or each.state == "paused" for each in there
        )


async def _hear(feed: Feed[Observation], on_seen: OnSeen) -> bool:
    """Read a feed for as long as a pause takes; return whether something came."""
    heard = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAUSE):
            while True:
                on_seen([await anext(feed), *feed.rest()])
                heard = True
    on_seen([])
    return heard


def _name(status: RunStatus) -> str:
    return f"{status.run} ({status.attempt})"
