"""How a command finds its broker, or finds that there is none."""

import asyncio
from pathlib import Path

import pytest

from tests.support import DEADLINE, free_endpoint, running_broker
from zloom.cli import connection, listeners
from zloom.cli.options import Target
from zloom.client import Operator
from zloom.errors import BrokerUnreachable


async def endpoint_of(operator: Operator) -> str:
    return operator.endpoint


async def test_that_nobody_listens_is_told_while_a_broker_may_be_starting_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listeners, "WAIT_TOLD_AFTER", 0.1)
    with free_endpoint("ipc") as endpoint:
        text = f"nobody listens at {endpoint}, nor began to within 0.4 s; start one with `zloom broker`"
        with pytest.raises(BrokerUnreachable, match=text):
            await connection.connected(Target(endpoint, 0.4, as_json=False), endpoint_of)
    told = f"nobody listens at {endpoint} yet; waiting 0 s more for a broker that is starting\n"
    assert capsys.readouterr().err == told


async def test_a_shorter_time_out_is_kept() -> None:
    with free_endpoint("ipc") as endpoint, pytest.raises(BrokerUnreachable, match=r"within 0\.01 s"):
        await connection.connected(Target(endpoint, 0.01, as_json=False), endpoint_of)


async def test_a_broker_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    with free_endpoint("ipc") as endpoint:
        target = Target(endpoint, DEADLINE, as_json=False)
        asking = asyncio.create_task(connection.connected(target, endpoint_of))
        await asyncio.sleep(0)  # it has looked once
        async with running_broker(tmp_path, endpoint=endpoint):
            assert await asking == endpoint
