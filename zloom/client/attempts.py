"""Finding the attempt of a run that trains, or waiting until one does."""

from collections.abc import Callable

from zloom.client.operator import Operator
from zloom.errors import Refused
from zloom.model import RunStatus


async def training_attempt(
    operator: Operator,
    run: str,
    *,
    attempt: str = "",
    without: str = "",
    wait: Callable[[str], object] | None = None,
) -> RunStatus:
    """Return the newest attempt of a run of which all ranks are there and have begun a step.

    Before that a trainer may still declare keys.

    Args:
        operator: Asks.
        run: Name of the run.
        attempt: Only this one.
        without: Not this one.
        wait: Told, once, what is waited for, for ever if need be; None waits for nothing.

    Raises:
        Refused: `no_replica`: there is none, and nothing is waited for.
    """
    async with operator.watch(run) as feed:
        told = False
        while True:
            wanted = (
                each
                for each in reversed(await operator.runs(run))
                if attempt in ("", each.attempt) and each.attempt != without and each.live >= each.world_size
            )
            found = next(wanted, None)
            if found is not None and await _has_begun(operator, found):
                return found
            why = _why(run, attempt, without) if found is None else f"{run} has not begun its first step"
            if wait is None:
                raise Refused("no_replica", f"{why}; start it, or wait for it with --wait")
            if not told:
                wait(why)
                told = True
            await anext(feed)


async def _has_begun(operator: Operator, status: RunStatus) -> bool:
    replicas = await operator.replicas(status.run, attempt=status.attempt)
    there = [each for each in replicas if each.state not in ("lost", "finished")]
    return len(there) >= status.world_size and all(each.step > 0 or each.state == "paused" for each in there)


def _why(run: str, attempt: str, without: str) -> str:
    which = f"no attempt {attempt} of {run}" if attempt else f"no attempt of {run}"
    other = f" other than {without}, which was recorded" if without else ""
    return f"there is {which}{other} with all its ranks"
