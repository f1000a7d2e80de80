"""A guard end to end: a real trainer whose loss explodes after a change, and recovers after the revert."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import zloom
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client.feeds import Feed
from zloom.client.operator import Observation
from zloom.messages import Happened
from zloom.model import Event

TRAINER = Path(__file__).with_name("descent_trainer.py")
GUARD = "loss > 5 * baseline or loss is nan within 100000 steps"


@contextlib.contextmanager
def trainer(endpoint: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, str(TRAINER), endpoint, str(log)]) as process:
        try:
            yield process
        finally:
            process.kill()


def command_line(endpoint: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zloom", *words, "--broker", endpoint]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.asynccontextmanager
async def descending(tmp_path: Path) -> AsyncIterator[tuple[str, zloom.Operator]]:
    """A broker, a trainer whose loss has come down, and an operator."""
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint),
        trainer(endpoint, tmp_path / "log") as process,
    ):
        async with zloom.connect(endpoint) as operator:
            await until(lambda: is_low(operator))
            yield endpoint, operator
            await operator.stop("descent")
            assert process.wait(DEADLINE) == 0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def is_low(operator: zloom.Operator, after: int = 100) -> bool:
    """Whether a loss as small as that of one that converged was reported behind a step."""
    return any(
        (each.step or 0) > after and each.metrics.get("loss", 1.0) < 0.5
        for each in await operator.replicas("descent")
    )


def rates(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


async def guard_event(feed: Feed[Observation]) -> Event:
    """Wait until something happens to a guard."""
    async for seen in feed:
        if isinstance(seen, Happened) and seen.event.kind.startswith("guard"):
            return seen.event
    raise AssertionError("the feed ended")


async def test_a_loss_that_explodes_is_brought_back(tmp_path: Path) -> None:
    async with descending(tmp_path) as (endpoint, operator):
        async with operator.watch("descent") as feed, asyncio.timeout(DEADLINE):
            # A little above 2 / curvature: the distance grows by 4 % a step, so there is time to come back.
            result = await operator.set("descent", {"learning_rate": 0.51}, revert_if=GUARD)
            assert result.applied_everywhere
            applied = result.outcomes[0].step
            assert applied is not None
            event = await guard_event(feed)
        assert event.kind == "guard_reverted"
        reverted = await operator.follow("descent", 2, timeout=DEADLINE)
        assert reverted.applied_everywhere
        back = reverted.outcomes[0].step
        assert back is not None
        assert rates(tmp_path) == [{"step": applied, "value": 0.51}, {"step": back, "value": 0.05}]
        guarded = next(each for each in await operator.history("descent") if each.revision.revision == 1)
        assert guarded.guard is not None
        assert guarded.guard.revision == 2
        assert f"revision 1 by revision 2: {guarded.guard.text}" == event.text
        await until(lambda: is_low(operator, back))
        shown = command_line(endpoint, "history", "descent").stdout
        assert f"revert if {GUARD} (reverted by 2: loss was " in shown
        assert "reverted: loss was " in shown


async def test_a_loss_that_is_lost_reverts_the_change(tmp_path: Path) -> None:
    async with descending(tmp_path) as (_, operator), operator.watch("descent") as feed:
        guard = "loss is nan within 100000 steps"
        await operator.set("descent", {"learning_rate": 1.0}, revert_if=guard)  # grows threefold each step
        async with asyncio.timeout(DEADLINE):
            event = await guard_event(feed)
        assert re.fullmatch(r"revision 1 by revision 2: loss was (nan|inf) at step \d+ on rank 0", event.text)
        assert (await operator.follow("descent", 2, timeout=DEADLINE)).applied_everywhere


async def test_a_bad_guard_is_refused_at_the_command_line_with_a_caret(tmp_path: Path) -> None:
    async with descending(tmp_path) as (endpoint, operator):
        bad = "los > 1 within 5 steps"
        refused = command_line(endpoint, "set", "descent", "learning_rate=0.6", "--revert-if", bad)
        assert refused.returncode == 1
        assert refused.stderr.splitlines() == [
            "zloom: column 1: unknown metric 'los'; did you mean loss? known are: loss",
            "  los > 1 within 5 steps",
            "  ^",
        ]
        assert await operator.history("descent") == []
