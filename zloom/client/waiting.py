"""Making a revision and waiting for what becomes of it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

from msgspec import structs

from zloom.client.caller import Caller, expect
from zloom.client.link import fresh_id
from zloom.client.results import Result
from zloom.errors import CheckpointFailed, Refused
from zloom.messages import Cancel, Follow, Preview, RevisionState, Rollback, SendCommand, SetConfig
from zloom.model import MAX_COUNT, MAX_NOTE, MAX_REQUEST_ID

OnProgress = Callable[[Result], None]
Change = SetConfig | Rollback | SendCommand

CANCEL_GRACE = 5.0
"""Seconds that `cancel_on_timeout` waits for the replicas to say what the cancel found."""

CHECKPOINT = ":checkpoint"
"""What the id of a checkpoint ends in, behind that of the change."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How a change is waited for; `Changes` says what each means."""

    wait: bool = True
    timeout: float | None = None
    cancel_on_timeout: bool = False
    on_progress: OnProgress | None = None


class Waiting(Caller):
    """Makes revisions, each followed until all have answered or the time is over."""

    async def _make(self, request: Change, how: Wait, *, checkpoint_first: bool, new: bool) -> Result:
        """Make a change, if asked for only once a checkpoint of the state before it is saved.

        Args:
            request: The change.
            how: To wait for it.
            checkpoint_first: Whether a checkpoint comes before it.
            new: It cannot have been made before, so what stands against it is not its own effect.
        """
        if not checkpoint_first:
            return await self._change(request, how)
        if new:
            await self._check(request)
        saved = await self._save(request, how)
        noted = structs.replace(
            request,
            attempt=saved.attempt,
            expected_revision=None if request.expected_revision is None else saved.revision,
            note=_after_checkpoint(saved.revision, request.note),
        )
        return replace(await self._change(noted, how), checkpoint=saved)

    async def _check(self, request: Change) -> None:
        """Raise `Refused` for what would be refused: no checkpoint need be saved for that."""
        asked = structs.replace(request, id=fresh_id(), note=_after_checkpoint(MAX_COUNT, request.note))
        for problem in (await self._preview(asked)).problems:
            raise Refused(problem.code, problem.text)

    async def _preview(self, request: Change) -> Preview:
        return await self._ask(structs.replace(request, preview=True), Preview)

    async def _save(self, request: Change, how: Wait) -> Result:
        command = SendCommand(
            id=_checkpoint_id(request.id),
            run=request.run,
            attempt=request.attempt,
            command="checkpoint",
            expected_revision=request.expected_revision,
            note=f"before {_what(request)}"[:MAX_NOTE],
        )
        saved = await self._change(command, Wait(timeout=how.timeout, cancel_on_timeout=True))
        if saved.applied_everywhere:
            return saved
        timeout = self._timeout if how.timeout is None else how.timeout
        late = [f"it was taken back after {timeout:g} s"] if saved.latency >= timeout else []
        raise CheckpointFailed(saved.revision, "; ".join([*_failures(saved), *late]))

    async def _change(self, request: Change | Cancel | Follow, how: Wait) -> Result:
        loop = asyncio.get_running_loop()
        result: Result | None = None
        chain = b""
        started = loop.time()
        timeout = self._timeout if how.timeout is None else how.timeout
        deadline = started + timeout
        with self._link.asked(request) as answers:
            while result is None or (how.wait and not result.settled):
                try:
                    async with asyncio.timeout_at(deadline):
                        state = expect(await answers.next(), RevisionState)
                except TimeoutError:
                    break
                result, chain = _result(state, loop.time() - started), state.chain
                if how.on_progress is not None:
                    how.on_progress(result)
        if result is None:
            raise self._link.unanswered(request.id, timeout)
        if how.wait and not result.settled:
            result = await self._take_back(result, chain) if how.cancel_on_timeout else result
            result = replace(result, latency=loop.time() - started)
        return result

    async def _take_back(self, result: Result, chain: bytes) -> Result:
        run, revision, attempt = result.run, result.revision, result.attempt
        if self._link.silent_for is not None:
            return result  # nobody would take the cancel; what is known is that the change was accepted
        settles = False
        with contextlib.suppress(Refused):  # by now it may be settled, which the state tells
            cancel = Cancel(id=fresh_id(), run=run, attempt=attempt, revision=revision, chain=chain)
            settles = (await self._change(cancel, Wait(timeout=CANCEL_GRACE))).settled
        follow = Follow(id=fresh_id(), run=run, attempt=attempt, revision=revision, chain=chain)
        return await self._change(follow, Wait(wait=settles, timeout=CANCEL_GRACE))


def _after_checkpoint(revision: int, note: str) -> str:
    return f"after checkpoint {revision}{'; ' if note else ''}{note}"


def _checkpoint_id(request: str) -> str:
    """Return the id of the checkpoint before a request, the same whenever that is asked again."""
    if len(request) + len(CHECKPOINT) > MAX_REQUEST_ID:
        request = blake2b(request.encode(), digest_size=16).hexdigest()
    return request + CHECKPOINT


def _what(request: Change) -> str:
    match request:
        case SetConfig():
            return f"a change of {', '.join(request.changes)}"
        case Rollback():
            return f"a rollback to {request.to_revision}"
        case SendCommand():
            return f"the command {request.command}"


def _failures(saved: Result) -> list[str]:
    return [
        f"rank {each.rank}: {each.outcome or 'no answer'}{f': {each.error}' if each.error else ''}"
        for each in saved.outcomes
        if each.outcome != "applied"
    ]


def _result(state: RevisionState, latency: float) -> Result:
    return Result(
        run=state.run,
        attempt=state.attempt,
        revision=state.revision,
        outcomes=sorted(state.outcomes, key=lambda outcome: (outcome.rank, outcome.replica)),
        settled=state.settled,
        durable=state.durable,
        duplicate=state.duplicate,
        at_step=state.at_step,
        latency=latency,
    )
