"""How a command finds its broker, or finds that there is none."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.support import DEADLINE, free_endpoint, running_broker
from zloom.cli import connection
from zloom.cli.options import Target
from zloom.client import Operator
from zloom.errors import BrokerUnreachable


async def endpoint_of(operator: Operator) -> str:
    return operator.endpoint


async def test_that_nobody_listens_is_told_long_before_the_time_out() -> None:
    begun = time.monotonic()
    with free_endpoint("ipc") as endpoint:
        text = f"nobody listens at {endpoint}, nor began to within 1 s; start one with `zloom broker`"
        with pytest.raises(BrokerUnreachable, match=text):
            await connection.connected(Target(endpoint, DEADLINE, as_json=False), endpoint_of)
    assert time.monotonic() - begun < connection.CONNECT_TIMEOUT


async def test_a_shorter_time_out_is_kept() -> None:
    with free_endpoint("ipc") as endpoint, pytest.raises(BrokerUnreachable, match=r"within 0\.01 s"):
        await connection.connected(Target(endpoint, 0.01, as_json=False), endpoint_of)


async def test_a_broker_that_is_just_starting_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STARTING", DEADLINE)
    with free_endpoint("ipc") as endpoint:
        target = Target(endpoint, DEADLINE, as_json=False)
        asking = asyncio.create_task(connection.connected(target, endpoint_of))
        await asyncio.sleep(0)  # it has looked once
        async with running_broker(tmp_path, endpoint=endpoint):
            assert await asking == endpoint
