# ruff: noqa: ASYNC109 - the end of these time-outs is an answer, not a cancellation
"""The calls of an operator that make revisions, and those that wait for them."""

from collections.abc import Mapping

from zloom.client.link import chosen_id, fresh_id
from zloom.client.results import Result
from zloom.client.waiting import OnProgress, Wait, Waiting
from zloom.messages import Cancel, Follow, Rollback, SendCommand, SetConfig
from zloom.model import Mode, Ramp, Value
from zloom.schema import plain


class Changes(Waiting):
    """What an operator can do to a run.

    Every change takes these arguments:

    attempt
        Which attempt of the run; when empty the newest, those with a replica first that is neither lost nor
        finished.
    expected_revision
        Refuse if the attempt has another newest revision.
    supersede
        End revisions that still wait and touch one of the keys, rather than be refused because of them.
    note
        Why, in words; the history shows it.
    checkpoint_first
        Save a checkpoint on all replicas, and make the change only when all have saved. The result has it as
        `checkpoint`; the time-out counts for each of the two.
    wait
        Wait until every replica has answered; otherwise return when the broker has accepted the change. Of
        more than 20 within 0.1 s it may tell that of the others 0.1 s later.
    timeout
        Seconds; None for that of the settings. Its end ends the wait and not the change: the result then has
        ``settled=False``.
    cancel_on_timeout
        At the end of the wait, take the change back wherever it has not been applied; left undone where the
        broker has fallen silent by then, which `Operator.silent_for` tells.
    request_id
        A name for this change, unique for ever: asking again under it has no second effect. It is of this
        user: another's request may have the same.
    on_progress
        Called with each newer result while waiting.

    and raises:

    Refused
        The broker refused it; nothing was changed. `Refused.code` says why.
    CheckpointFailed
        With `checkpoint_first`: not all replicas have saved; nothing was changed.
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
        ramps: Mapping[str, Ramp] | None = None,
        attempt: str = "",
        mode: Mode | None = None,
        at_step: int | None = None,
        after: int | None = None,
        expected_revision: int | None = None,
        supersede: bool = False,
        queue: bool = False,
        note: str = "",
        revert_if: str = "",
        checkpoint_first: bool = False,
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
            ramps: Of keys that get to their value step by step.
            mode: When to apply; the broker's default suits the world size. `at_step` and `after` imply one.
            at_step: The step to apply it before.
            after: So many steps after the one that the furthest rank is at when the broker accepts it, as it
                reckons from what each told last; the result names the step.
            queue: With `at_step`: wait behind revisions that wait for one of the keys, where each is for that
                step or an earlier one, rather than be refused because of them.
            revert_if: A guard, such as ``loss > 2 * baseline or loss is nan within 200 steps``; when it fires
                the broker gives the keys the values back that they had before. `docs/protocol.md` has the
                grammar.

        For the rest see `Changes`.
        """
        request = SetConfig(
            id=chosen_id(request_id),
            run=run,
            attempt=attempt,
            changes={key: plain(value) for key, value in changes.items()},
            ramps=dict(ramps or {}),
            mode="at_step" if mode is None and at_step is not None else mode,
            at_step=at_step,
            after=after,
            expected_revision=expected_revision,
            supersede=supersede,
            queue=queue,
            note=note,
            revert_if=revert_if,
        )
        how = Wait(wait, timeout, cancel_on_timeout, on_progress)
        new = request_id is None
        return await self._make(request, how, checkpoint_first=checkpoint_first, new=new)

    async def rollback(
        self,
        run: str,
        to_revision: int,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
        supersede: bool = False,
        note: str = "",
        checkpoint_first: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Set every key to its value at an earlier revision, as a new revision; 0 is the trainer's own.

        Of a ramp that is the value at its end.
        """
        request = Rollback(
            id=chosen_id(request_id),
            run=run,
            attempt=attempt,
            to_revision=to_revision,
            mode=mode,
            expected_revision=expected_revision,
            supersede=supersede,
            note=note,
        )
        how = Wait(wait, timeout, cancel_on_timeout, on_progress)
        new = request_id is None
        return await self._make(request, how, checkpoint_first=checkpoint_first, new=new)

    async def command(
        self,
        run: str,
        name: str,
        arguments: Mapping[str, Value] | None = None,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
        note: str = "",
        checkpoint_first: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        request_id: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Have a command carried out once by each replica of the run."""
        request = SendCommand(
            id=chosen_id(request_id),
            run=run,
            attempt=attempt,
            command=name,
            arguments={key: plain(value) for key, value in (arguments or {}).items()},
            mode=mode,
            expected_revision=expected_revision,
            note=note,
        )
        how = Wait(wait, timeout, cancel_on_timeout, on_progress)
        new = request_id is None
        return await self._make(request, how, checkpoint_first=checkpoint_first, new=new)

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

        It is `applied` at a replica where the revision was still pending, `rejected` where it was applied. A
        ramp that is under way ends where it is, which counts as applied.
        """
        request = Cancel(id=chosen_id(request_id), run=run, attempt=attempt, revision=revision)
        return await self._change(request, Wait(wait, timeout, on_progress=on_progress))

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
        return await self._change(request, Wait(wait, timeout, on_progress=on_progress))
