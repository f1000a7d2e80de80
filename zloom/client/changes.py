# ruff: noqa: ASYNC109 - the end of these time-outs is an answer, not a cancellation
"""The calls of an operator that make revisions, and those that wait for them."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from zloom.client.caller import Caller, expect
from zloom.client.link import fresh_id
from zloom.client.results import Result
from zloom.errors import Refused
from zloom.messages import Cancel, Follow, FromOperator, RevisionState, Rollback, SendCommand, SetConfig
from zloom.model import Mode, Value
from zloom.schema import plain

OnProgress = Callable[[Result], None]

PAUSE_LIMIT = 1800.0
"""Seconds after which a pause ends by itself: an operator who was cut off must not cost a night of GPUs."""

CANCEL_GRACE = 5.0
"""Seconds that `cancel_on_timeout` waits for the replicas to say what the cancel found."""


class Changes(Caller):
    """What an operator can do to a run.

    Every change takes these arguments:

    attempt
        Which attempt of the run; the newest when empty.
    wait
        Wait until every replica has answered; otherwise return when the broker has accepted the change.
    timeout
        Seconds; None for that of the settings. Its end ends the wait and not the change: the result then has
        ``settled=False``.
    cancel_on_timeout
        At the end of the wait, take the change back wherever it has not been applied.
    request_id
        A name for this change, unique for ever: asking again under it has no second effect.
    on_progress
        Called with each newer result while waiting.

    and raises:

    Refused
        The broker refused it; nothing was changed. `Refused.code` says why.
    BrokerUnreachable
        No answer in time; whether the change was accepted is unknown. Asking again with the same
        `request_id` is safe.
    SettingsError, LocalProtocolError
        A value cannot be sent at all.

    A cancelled call ends its wait, and nothing else.
    """

    async def set(
        self,
        run: str,
        changes: Mapping[str, Value],
        *,
        attempt: str = "",
        mode: Mode | None = None,
        at_step: int | None = None,
        expected_revision: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Change keys of a run's config, all or none.

        Args:
            run: Name of the run.
            changes: Values by key, as the keys' types want them.
            mode: When to apply; the broker's default suits the world size. `at_step` implies its mode.
            at_step: The step to apply it before.
            expected_revision: Refuse if the attempt has another newest revision.

        For the rest see `Operator`.
        """
        request = SetConfig(
            id=request_id or fresh_id(),
            run=run,
            attempt=attempt,
            changes={key: plain(value) for key, value in changes.items()},
            mode="at_step" if mode is None and at_step is not None else mode,
            at_step=at_step,
            expected_revision=expected_revision,
        )
        return await self._change(request, wait, timeout, cancel_on_timeout, on_progress)

    async def rollback(
        self,
        run: str,
        to_revision: int,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Set every key to its value at an earlier revision, as a new revision; 0 is the trainer's own."""
        request = Rollback(
            id=request_id or fresh_id(),
            run=run,
            attempt=attempt,
            to_revision=to_revision,
            mode=mode,
            expected_revision=expected_revision,
        )
        return await self._change(request, wait, timeout, cancel_on_timeout, on_progress)

    async def command(
        self,
        run: str,
        name: str,
        arguments: Mapping[str, Value] | None = None,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Have a command carried out once by each replica of the run."""
        request = SendCommand(
            id=request_id or fresh_id(),
            run=run,
            attempt=attempt,
            command=name,
            arguments={key: plain(value) for key, value in (arguments or {}).items()},
            mode=mode,
            expected_revision=expected_revision,
        )
        return await self._change(request, wait, timeout, cancel_on_timeout, on_progress)

    async def pause(
        self, run: str, limit: float | None = PAUSE_LIMIT, *, attempt: str = "", timeout: float | None = None
    ) -> Result:
        """Pause training, for at most `limit` seconds; None for no limit."""
        return await self.command(run, "pause", {"limit": limit}, attempt=attempt, timeout=timeout)

    async def resume(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """End a pause."""
        return await self.command(run, "resume", attempt=attempt, timeout=timeout)

    async def stop(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """End training, as if it had reached its end."""
        return await self.command(run, "stop", attempt=attempt, timeout=timeout)

    async def checkpoint(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """Save a checkpoint; where, say the outcomes' `detail`."""
        return await self.command(run, "checkpoint", attempt=attempt, timeout=timeout)

    async def validate(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """Run the validation loop now."""
        return await self.command(run, "validate", attempt=attempt, timeout=timeout)

    async def cancel(
        self,
        run: str,
        revision: int,
        *,
        attempt: str = "",
        wait: bool = True,
        timeout: float | None = None,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Take back a revision wherever it has not been applied; the result is that of the cancel itself.

        It is `applied` at a replica where the revision was still pending, `rejected` where it was applied.
        """
        request = Cancel(id=request_id or fresh_id(), run=run, attempt=attempt, revision=revision)
        return await self._change(request, wait, timeout, False, on_progress)

    async def follow(
        self,
        run: str,
        revision: int,
        *,
        attempt: str = "",
        wait: bool = True,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Wait for what becomes of a revision that was accepted earlier, by whomever."""
        request = Follow(id=fresh_id(), run=run, attempt=attempt, revision=revision)
        return await self._change(request, wait, timeout, False, on_progress)

    async def _change(
        self,
        request: FromOperator,
        wait: bool,
        timeout: float | None,
        cancel_on_timeout: bool,
        on_progress: OnProgress | None,
    ) -> Result:
        loop = asyncio.get_running_loop()
        result: Result | None = None
        started = loop.time()
        timeout = self._timeout if timeout is None else timeout
        with self._link.asked(request) as answers, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while result is None or (wait and not result.settled):
                    state = expect(await answers.next(), RevisionState)
                    result = _result(state, loop.time() - started)
                    if on_progress is not None:
                        on_progress(result)
        if result is None:
            raise self._link.unanswered(request.id, timeout)
        if wait and not result.settled:
            result = await self._take_back(result) if cancel_on_timeout else result
            result = replace(result, latency=loop.time() - started)
        return result

    async def _take_back(self, result: Result) -> Result:
        run, revision, attempt = result.run, result.revision, result.attempt
        settles = False
        with contextlib.suppress(Refused):  # by now it may be settled, which the state tells
            taken_back = await self.cancel(run, revision, attempt=attempt, timeout=CANCEL_GRACE)
            settles = taken_back.settled
        return await self.follow(run, revision, attempt=attempt, wait=settles, timeout=CANCEL_GRACE)


def _result(state: RevisionState, latency: float) -> Result:
    return Result(
        run=state.run,
        attempt=state.attempt,
        revision=state.revision,
        outcomes=sorted(state.outcomes, key=lambda outcome: (outcome.rank, outcome.replica)),
        settled=state.settled,
        durable=state.durable,
        duplicate=state.duplicate,
        latency=latency,
    )
