"""Jobs of several ranks in processes of their own, and an operator who never leaves them alone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from random import Random
from typing import Any

import zloom
from tests.e2e.forks import FORKS
from tests.support import DEADLINE
from zloom.messages import Reported

Changes = dict[str, Any]


@contextlib.contextmanager
def ranks(main: Callable[[Any], None], plans: list[Any]) -> Iterator[list[BaseProcess]]:
    """Run a job, one process for each plan; whoever has not ended with the block is killed."""
    processes = [FORKS.Process(target=main, args=(plan,)) for plan in plans]
    for process in processes:
        process.start()
    try:
        yield processes  # type: ignore[misc]
    finally:
        for process in processes:
            process.kill()
            process.join()


async def all_train(operator: zloom.Operator, run: str, world_size: int) -> None:
    """Wait until all ranks have begun, and the broker knows their pace."""
    paces: dict[int, float | None] = {}
    async with operator.watch(run) as feed, asyncio.timeout(2 * DEADLINE):
        async for told in feed:
            if isinstance(told, Reported):
                paces[told.status.rank] = told.status.step_time
                if len(paces) == world_size and None not in paces.values():
                    return


async def ended(processes: list[BaseProcess]) -> list[int | None]:
    """Wait until all ranks have ended; return their exit codes."""
    for process in processes:
        await asyncio.to_thread(process.join, DEADLINE)
    return [process.exitcode for process in processes]


def one_fate(result: zloom.Result) -> int | None:
    """Return the step at which all ranks applied a change; None when none did."""
    kinds = {outcome.outcome for outcome in result.outcomes}
    assert result.settled, result
    if "applied" not in kinds:
        assert kinds <= {"aborted", "rejected"}, result
        return None
    assert kinds == {"applied"}, result
    (step,) = {outcome.step for outcome in result.outcomes}
    return step


def at_once(*scenarios: Coroutine[Any, Any, None]) -> None:
    """Run scenarios side by side, since they mostly wait; each in a loop of its own that it may block."""
    with ThreadPoolExecutor(len(scenarios)) as pool:
        for running in [pool.submit(asyncio.run, scenario) for scenario in scenarios]:
            running.result()


class Storm:
    """An operator who changes one thing after the other, and sometimes several at once.

    Args:
        operator: Connected.
        run: To be changed.
        random: Decides what comes next.
        draw: Returns a value for each key that there is.
        in_pause: Keys that can be changed in a pause.
        commands: To be carried out now and then, beside pauses.
    """

    def __init__(
        self,
        operator: zloom.Operator,
        run: str,
        random: Random,
        draw: Callable[[Random], Changes],
        in_pause: tuple[str, ...],
        commands: tuple[str, ...] = ("checkpoint",),
    ) -> None:
        self.operator, self.run, self.random = operator, run, random
        self._draw, self._in_pause, self._commands = draw, in_pause, commands
        self.applied: list[tuple[int, int, Changes]] = []
        """Step, revision and what was changed."""
        self.refused: list[zloom.Result] = []

    async def blow(self, count: int) -> None:
        for _ in range(count):
            several = self.random.choice((1, 1, 1, 3))
            await asyncio.gather(*(self.change() for _ in range(several)))
            if self.random.random() < 0.25:
                await self.pause()
            elif self.random.random() < 0.25:
                await self.command()

    async def change(self, *keys: str) -> None:
        """Change the keys, by default some that are drawn."""
        values = self._draw(self.random)
        keys = keys or tuple(self.random.sample(sorted(values), self.random.randint(1, 3)))
        changes = {key: values[key] for key in keys}
        result = await self.attempt(self.operator.set(self.run, changes, timeout=DEADLINE))
        step = one_fate(result) if result else None
        if result and step is not None:
            self.applied.append((step, result.revision, changes))
        elif result:
            self.refused.append(result)

    async def attempt(self, change: Awaitable[zloom.Result]) -> zloom.Result | None:
        try:
            return await change
        except zloom.Refused as refused:
            if refused.code == "key_pending":  # another change of the same gust is under way
                return None
            raise

    async def pause(self) -> None:
        paused = one_fate(await self.operator.pause(self.run, timeout=DEADLINE))
        await self.change(*self.random.sample(self._in_pause, 2))
        await self.command()
        resumed = one_fate(await self.operator.resume(self.run, timeout=DEADLINE))
        assert paused == resumed

    async def command(self) -> None:
        result = await self.operator.command(self.run, self.random.choice(self._commands), timeout=DEADLINE)
        assert one_fate(result) is not None, result
        assert len({outcome.detail for outcome in result.outcomes}) == 1
