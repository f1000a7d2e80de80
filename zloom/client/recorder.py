"""Writes all that is known of a run, and then all that happens in it, until it ends."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeVar

from zloom import recording
from zloom.client.attempts import OnWait, Search
from zloom.client.feeds import Feed
from zloom.client.operator import Observation, Operator
from zloom.client.prelude import Losses, Prelude
from zloom.errors import BrokerUnreachable, RecordingError
from zloom.messages import Happened
from zloom.model import GONE, ReplicaStatus
from zloom.recording_file import RecordingWriter, check_writable
from zloom.transcript import Transcript
from zloom.version import __version__

T = TypeVar("T")

CATCH_UP = 1.0
"""Seconds for the history to come: who ends the recording may have to go within two."""

QUIET = 10.0
"""Seconds without a word until the broker is asked whether the run goes on: its end may have been published
when a restarted broker did not have this subscription yet."""

STOPPED = "stopped by its user"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording holds.

    Attributes:
        path: The file.
        size: Its bytes.
        header: Its first object.
        end: Its last object: why it ended, and what is missing.
        revisions: How many, with those from before it began.
        metrics: Names of those that had points.
        events: How many.
    """

    path: Path
    size: int
    header: recording.Header
    end: recording.End
    revisions: int
    metrics: list[str]
    events: int


class Recorder:
    """Records one attempt of a run; for use on the operator's loop.

    Args:
        operator: Watches the run.
        run: Name of the run.
        attempt: Which attempt; the newest when empty.
    """

    def __init__(self, operator: Operator, run: str, attempt: str = "") -> None:
        self.on_begin: Callable[[recording.Header], object] = lambda header: None
        """Told of the header when it is written."""
        self._operator = operator
        self._run = run
        self._attempt = attempt
        self._feed: Feed[Observation] = operator.watch(run)
        self._before = Losses()
        """Of the feed, which are none of the recording."""
        self._stopped = False
        self._last_answer = inf
        """Until when the last question may be answered, on the loop's clock."""
        self._question: asyncio.Timeout | None = None
        """Of what the broker is being asked."""
        self._is_last = False
        """Whether that question is the last."""

    def stop(self) -> None:
        """End the recording, or the wait for it; `record` then ends within `CATCH_UP` seconds."""
        self._stopped = True
        self._feed.close()
        now = asyncio.get_running_loop().time()
        self._last_answer = min(self._last_answer, now + CATCH_UP)
        # The last one has all the time after this.
        if self._question is not None and not self._question.expired():
            self._question.reschedule(self._last_answer if self._is_last else now)

    async def record(self, path: Path, *, replace: bool = False, wait: OnWait | None = None) -> Recorded:
        """Write a recording until the run has ended or `stop` is called.

        Args:
            path: Of the file; it is not made where there is no such run.
            replace: Write over a file that is there.
            wait: Begin once the run trains, as `training_attempt` finds it, with the points and events that
                the attempt had before. None begins at once.

        Raises:
            RecordingError: The file is there already, or cannot be written; or `stop` was called before the
                recording began, and no file is made.
            Refused: There is no such run, and it is not waited for.
        """
        check_writable(path, replace=replace)  # now, and not when somebody has waited for a night
        async with self._feed:  # from here on nothing is missed; what comes twice is written once
            prelude = Prelude()
            header = await self._begin(prelude, wait)
            if header is None:
                raise RecordingError(f"stopped before {path} was begun: nothing is recorded")
            self._before = prelude.losses_before(self._attempt)
            with RecordingWriter(path, replace=replace) as writer:
                transcript = Transcript(header)
                writer.write([header])
                for seen, at in prelude.of(self._attempt):
                    writer.write(transcript.see(seen, at))
                self.on_begin(header)
                end = await self._follow(transcript, writer)
                writer.write([end])
        metrics = sorted(transcript.metrics)
        return Recorded(path, writer.size, header, end, transcript.revisions, metrics, transcript.events)

    async def _begin(self, prelude: Prelude, on_wait: OnWait | None) -> recording.Header | None:
        """Return the header, after a wait if need be; None where `stop` was called before."""
        try:
            async with asyncio.timeout(0 if self._stopped else None) as self._question:
                if on_wait is not None:
                    await self._wait(on_wait, prelude)
                return await self._header(prelude)
        except (TimeoutError, StopAsyncIteration):  # in a question, or between two
            if not self._stopped:
                raise
            return None
        finally:
            self._question = None

    async def _wait(self, on_wait: OnWait, prelude: Prelude) -> None:
        search = Search(self._operator, self._run, attempt=self._attempt)
        found = await search.wait(
            self._feed, on_wait, lambda seen: prelude.see(seen, self._losses(), time.time())
        )
        self._attempt = found.attempt

    def _losses(self) -> Losses:
        return Losses(self._feed.missed + self._feed.dropped, self._feed.restarts)

    async def _header(self, prelude: Prelude) -> recording.Header:
        keys = await self._operator.keys(self._run, attempt=self._attempt)
        self._attempt = keys.attempt
        runs = {each.attempt: each for each in await self._operator.runs(self._run)}
        replicas = await self._operator.replicas(self._run, attempt=keys.attempt)
        return recording.Header(
            magic=recording.MAGIC,
            version=recording.VERSION,
            software=f"zloom {__version__}",
            run=keys.run,
            attempt=keys.attempt,
            world_size=runs[keys.attempt].world_size if keys.attempt in runs else 1,
            revision=keys.revision,
            keys=[state.key for state in keys.keys],
            commands=keys.commands,
            config={state.key.name: state.value for state in keys.keys},
            replicas=prelude.first_of(keys.attempt, replicas),
            at=time.time(),
        )

    async def _follow(self, transcript: Transcript, writer: RecordingWriter) -> recording.End:
        await self._catch_up(transcript, writer)
        reason = await self._ended()
        while not reason:
            try:
                async with asyncio.timeout(QUIET):
                    seen = await anext(self._feed)
            except TimeoutError:
                reason = await self._ended()
                continue
            except StopAsyncIteration:
                reason = STOPPED
                break
            if self._write([seen], transcript, writer):
                await self._catch_up(transcript, writer)
            if isinstance(seen, Happened):
                reason = await self._ended()
        if reason != STOPPED:
            await self._ask(self._reach_now())
            self._write(self._feed.rest(), transcript, writer)
        complete = await self._catch_up(transcript, writer, last=True)
        return transcript.end(reason, time.time(), complete=complete)

    def _write(
        self, observations: Sequence[Observation], transcript: Transcript, writer: RecordingWriter
    ) -> bool:
        """Write what was watched; return whether something is missing before it."""
        now, losses, before = time.time(), self._losses(), self._before
        gaps = transcript.see_gaps(losses.messages - before.messages, losses.restarts - before.restarts, now)
        writer.write(gaps)
        for seen in observations:
            writer.write(transcript.see(seen, now))
        return bool(gaps)

    async def _reach_now(self) -> None:
        """Wait until the feed has all that was published before this: a newer feed is confirmed after it."""
        async with self._operator.watch(self._run):
            pass

    async def _catch_up(self, transcript: Transcript, writer: RecordingWriter, *, last: bool = False) -> bool:
        """Write what the history has and was not watched; return whether it could be asked for."""
        entries = await self._ask(self._operator.history(self._run, attempt=self._attempt), last=last)
        writer.write(transcript.take_history(entries or [], time.time()))
        return entries is not None

    async def _ended(self) -> str:
        """Return how the run ended: no replica of it is left; empty while one is."""
        replicas = await self._ask(self._operator.replicas(self._run, attempt=self._attempt))
        if replicas is None or any(each.state not in GONE for each in replicas):
            return ""
        return "; ".join(sorted({_end_of(each) for each in replicas})) or "forgotten"

    async def _ask(self, question: Coroutine[None, None, T], *, last: bool = False) -> T | None:
        """Return the answer of the broker; None where it did not come in time, or `stop` was called.

        Args:
            question: To the broker.
            last: After this no other is asked: where `stop` was called before, it has the time that is left.
        """
        now = asyncio.get_running_loop().time()
        in_time = min(now + CATCH_UP, self._last_answer) if last or not self._stopped else now
        self._is_last = last
        try:
            async with asyncio.timeout_at(in_time) as self._question:
                return await question
        except (TimeoutError, BrokerUnreachable):
            return None
        finally:
            self._question = None


def _end_of(replica: ReplicaStatus) -> str:
    """Return how a replica left, once where its reason says no more than its state."""
    return replica.state if replica.reason in ("", replica.state) else f"{replica.state}: {replica.reason}"
