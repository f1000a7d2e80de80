"""Finding the attempt of a run that trains, or waiting until one does."""

from zloom.client.operator import Operator
from zloom.errors import Refused
from zloom.model import RunStatus


async def training_attempt(
    operator: Operator, run: str, *, attempt: str = "", without: str = "", wait: bool = False
) -> RunStatus:
    """Return the newest attempt of a run of which all ranks are there.

    Args:
        operator: Asks.
        run: Name of the run.
        attempt: Only this one.
        without: Not this one.
        wait: Wait for it, for ever if need be.

    Raises:
        Refused: `no_replica`: there is none.
    """
    async with operator.watch(run) as feed:
        while True:
            for status in reversed(await operator.runs(run)):
                wanted = attempt in ("", status.attempt) and status.attempt != without
                if wanted and status.live >= status.world_size:
                    return status
            if not wait:
                raise Refused("no_replica", _why(run, attempt, without))
            await anext(feed)


def _why(run: str, attempt: str, without: str) -> str:
    which = f"no attempt {attempt} of {run}" if attempt else f"no attempt of {run}"
    other = f" other than {without}, which was recorded" if without else ""
    return f"there is {which}{other} with all its ranks; start it, or wait for it with --wait"
