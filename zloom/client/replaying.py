"""Steers a run as a recorded one was: the whole schedule is handed over before its first step comes."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from zloom.client.operator import Operator
from zloom.client.results import Result
from zloom.errors import RecordingError, Refused, ZloomError
from zloom.messages import Keys
from zloom.model import GONE, ReplicaStatus
from zloom.recording import Header
from zloom.replay_schedule import Change

TO_PAUSE = 2.0
"""Seconds in which one that pauses at the first step of the schedule must have told so."""

WITHDRAWAL = 5.0
"""Seconds for replicas to say what became of a change that was taken back."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a change of the recording in the new run.

    Attributes:
        change: As recorded.
        result: Of the revision that repeats it.
    """

    change: Change
    result: Result

    @property
    def exact(self) -> bool:
        """Whether all ranks applied it at the step of the recording."""
        steps = {outcome.step for outcome in self.result.outcomes}
        return self.result.applied_everywhere and steps == {self.change.step}


class Replay:
    """Replays the changes of a recording in one attempt of a run; for use on the operator's loop.

    Args:
        operator: Steers the run.
        header: Of the recording.
        changes: In the order of the schedule.
        run: Name of the run.
        attempt: Of it, in training.
    """

    def __init__(
        self, operator: Operator, header: Header, changes: list[Change], run: str, attempt: str
    ) -> None:
        self.accepted: list[tuple[Change, Result]] = []
        """Changes that were handed over, with their revisions."""
        self._operator = operator
        self._header = header
        self._changes = changes
        self._run = run
        self._attempt = attempt

    async def differences(self) -> list[str]:
        """Return in words how the run differs from the recorded one in what bears on the result.

        Raises:
            RecordingError: It lacks keys that were changed, or has begun their steps, so that it cannot be
                steered in the same way.
        """
        keys = await self._operator.keys(self._run, attempt=self._attempt)
        replicas = await self._standing()
        problems = [*self._lacking(keys), *self._passed(replicas)]
        if problems:
            raise RecordingError(f"{self._run} cannot be steered as it was recorded: {'; '.join(problems)}")
        return [*self._baselines(keys), *self._steered(keys), *self._ranks(replicas)]

    async def hand_over(self) -> None:
        """Send the whole schedule; then let the training go on, if it is paused or has not begun.

        Raises:
            Refused: A change was refused. What was handed over before it has been taken back.
        """
        note = f"replay of {self._header.run} ({self._header.attempt}), revision "
        for change in self._changes:
            try:
                result = await self._operator.set(
                    self._run,
                    change.changes,
                    ramps=change.ramps,
                    attempt=self._attempt,
                    at_step=change.step,
                    queue=True,
                    note=f"{note}{change.revision}",
                    wait=False,
                )
            except Refused as refused:
                refused.add_note(f"it was for revision {change.revision} of the recording")
                await self.withdraw(after=0)
                raise
            self.accepted.append((change, result))
        await self._go_on()

    async def outcomes(self) -> AsyncIterator[Replayed]:
        """Yield what becomes of each change as it is known, in the order of the schedule."""
        for change, accepted in self.accepted:
            yield Replayed(change, await self._follow(accepted.revision, timeout=math.inf))

    async def withdraw(self, *, after: int) -> list[Replayed]:
        """Take back what was handed over behind the first `after` changes, and return what became of it."""
        rest = self.accepted[after:]
        for _, accepted in reversed(rest):
            with contextlib.suppress(Refused):  # by now it may be settled, which its outcomes tell
                await self._operator.cancel(
                    self._run, accepted.revision, attempt=self._attempt, timeout=WITHDRAWAL
                )
        return [Replayed(change, await self._follow(each.revision, WITHDRAWAL)) for change, each in rest]

    # --- inside ------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        replicas = await self._replicas()
        if any(each.state == "paused" for each in replicas) or all(
            (each.step or 0) <= 1 for each in replicas
        ):
            # On several ranks agreed on like the changes, and so behind those that are for the first steps.
            await self._operator.command(
                self._run, "resume", attempt=self._attempt, mode="consistent", note="replay", wait=False
            )

    async def _follow(self, revision: int, timeout: float) -> Result:  # noqa: ASYNC109 - its end is an answer
        return await self._operator.follow(self._run, revision, attempt=self._attempt, timeout=timeout)

    async def _replicas(self) -> list[ReplicaStatus]:
        replicas = await self._operator.replicas(self._run, attempt=self._attempt)
        present = [each for each in replicas if each.state not in GONE]
        if not present:
            raise ZloomError(f"no replica of {self._run} ({self._attempt}) is there any more")
        return present

    def _lacking(self, keys: Keys) -> list[str]:
        wanted = {key for change in self._changes for key in change.changes}
        lacking = sorted(wanted - {state.key.name for state in keys.keys})
        return [f"it has no key {name!r}" for name in lacking]

    async def _standing(self) -> list[ReplicaStatus]:
        """Return the replicas, once none is between the beginning of the first step and a pause at it."""
        first = self._changes[0].step if self._changes else 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TO_PAUSE), self._operator.watch(self._run) as feed:
                while any(_trains(each, first) for each in await self._replicas()):
                    await anext(feed)
        return await self._replicas()

    def _passed(self, replicas: list[ReplicaStatus]) -> list[str]:
        if not self._changes:
            return []
        first = self._changes[0]
        late = [
            each.step
            for each in replicas
            if each.step is not None and (each.step > first.step or _trains(each, first.step))
        ]
        if not late:
            return []
        return [
            f"its step {max(late)} has begun, and revision {first.revision} was applied at step "
            f"{first.step}; start it with ZLOOM_START_PAUSED=600, and the replay lets it go on"
        ]

    def _baselines(self, keys: Keys) -> list[str]:
        recorded = {key.name: key.baseline for key in self._header.keys}
        here = {state.key.name: state.key.baseline for state in keys.keys}
        return [
            f"{name} began at {here[name]!r}, in the recording at {value!r}"
            for name, value in recorded.items()
            if name in here and here[name] != value
        ]

    def _steered(self, keys: Keys) -> list[str]:
        changed = sorted(state.key.name for state in keys.keys if state.revision > 0)
        return [f"it was steered already: {', '.join(changed)}"] if changed else []

    def _ranks(self, replicas: list[ReplicaStatus]) -> list[str]:
        size = replicas[0].world_size
        recorded = self._header.world_size
        return [f"it has {size} ranks, in the recording {recorded}"] if size != recorded else []


def _trains(replica: ReplicaStatus, step: int) -> bool:
    """Whether a replica has begun this very step, and is not known to be paused there."""
    return replica.step == step and replica.state != "paused"
