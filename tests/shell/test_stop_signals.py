"""The signals that tell a process to end."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.support import DEADLINE
from zloom import stop_signals


@pytest.fixture
def ignored() -> Iterator[None]:
    """Let SIGHUP be ignored, as `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_each_of_them_is_heeded(number: signal.Signals) -> None:
    told = asyncio.Event()
    stop_signals.heed(asyncio.get_running_loop(), told.set)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(DEADLINE):
        await told.wait()


async def test_nohup_is_respected(ignored: None) -> None:
    told: list[str] = []
    later = asyncio.Event()

    def stop() -> None:
        told.append("told")
        later.set()

    stop_signals.heed(asyncio.get_running_loop(), stop)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        await later.wait()
    assert told == ["told"]
