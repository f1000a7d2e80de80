# ruff: noqa: ASYNC109 - the end of these time-outs is an answer, not a cancellation
"""The calls of an operator for the commands that most trainers know."""

from zloom.client.changes import Changes
from zloom.client.results import Result

PAUSE_LIMIT = 1800.0
"""Seconds after which a pause ends by itself: an operator who was cut off must not cost a night of GPUs."""


class Commands(Changes):
    """Commands by their names; `Changes.command` sends any, with more to say about how."""

    async def pause(
        self, run: str, limit: float | None = PAUSE_LIMIT, *, attempt: str = "", timeout: float | None = None
    ) -> Result:
        """Pause training, for at most `limit` seconds; None for no limit."""
        return await self.command(run, "pause", {"limit": limit}, attempt=attempt, timeout=timeout)

    async def resume(
        self, run: str, *, steps: int | None = None, attempt: str = "", timeout: float | None = None
    ) -> Result:
        """End a pause; with `steps` train so many and pause again, all ranks at the same step.

        The outcomes' `detail` says of a replica that it was not paused, and from which step it pauses again
        and for how long.
        """
        arguments = {} if steps is None else {"steps": steps}
        return await self.command(run, "resume", arguments, attempt=attempt, timeout=timeout)

    async def stop(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """End training, as if it had reached its end."""
        return await self.command(run, "stop", attempt=attempt, timeout=timeout)

    async def checkpoint(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """Save a checkpoint; where, say the outcomes' `detail`."""
        return await self.command(run, "checkpoint", attempt=attempt, timeout=timeout)

    async def validate(self, run: str, *, attempt: str = "", timeout: float | None = None) -> Result:
        """Run the validation loop now."""
        return await self.command(run, "validate", attempt=attempt, timeout=timeout)
