"""The calls of an operator that say what would come of a change, and change nothing."""

from collections.abc import Mapping

from zloom.client.link import fresh_id
from zloom.client.waiting import Waiting
from zloom.messages import Preview, Rollback, SendCommand, SetConfig
from zloom.model import Mode, Ramp, Value
from zloom.schema import plain


class Previews(Waiting):
    """What the broker would make of a change at this moment, by what the replicas declared.

    The `Preview` has the revision as it would be accepted, or `problems`: why it would be refused, and whose
    schema refuses it. Nothing is written and the replicas are not asked. The arguments are those of the
    changes; what is raised is `Refused` where there is no such run, and `BrokerUnreachable`.
    """

    async def preview_set(
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
        revert_if: str = "",
    ) -> Preview:
        """Say what would come of `set`."""
        request = SetConfig(
            id=fresh_id(),
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
            revert_if=revert_if,
        )
        return await self._preview(request)

    async def preview_rollback(
        self,
        run: str,
        to_revision: int,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
        supersede: bool = False,
    ) -> Preview:
        """Say what would come of `rollback`: its revision has the keys that would change."""
        request = Rollback(
            id=fresh_id(),
            run=run,
            attempt=attempt,
            to_revision=to_revision,
            mode=mode,
            expected_revision=expected_revision,
            supersede=supersede,
        )
        return await self._preview(request)

    async def preview_command(
        self,
        run: str,
        name: str,
        arguments: Mapping[str, Value] | None = None,
        *,
        attempt: str = "",
        mode: Mode | None = None,
        expected_revision: int | None = None,
    ) -> Preview:
        """Say what would come of `command`."""
        request = SendCommand(
            id=fresh_id(),
            run=run,
            attempt=attempt,
            command=name,
            arguments={key: plain(value) for key, value in (arguments or {}).items()},
            mode=mode,
            expected_revision=expected_revision,
        )
        return await self._preview(request)
