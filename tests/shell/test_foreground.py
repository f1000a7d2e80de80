"""A broker in the foreground: what it says on stderr, and that nobody has to listen."""

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

from tests.shell.scripted_peer import connected, replica
from tests.shell.test_server import change, operator_at
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import messages as m


async def steer(endpoint: str, changes: int = 1) -> None:
    """Let a weavelet join, change it, and let it say goodbye."""
    async with operator_at(endpoint) as operator:
        with connected(operator.context, endpoint) as weavelet:
            await weavelet.hello(replica("a"))
            for number in range(changes):
                assert (await operator.ask(change(number))).revision == number + 1
            weavelet.send(m.Goodbye(reason="trained"))
            await operator.get(m.RevisionState, revision=changes, settled=True)


def test_the_log_tells_what_happens_in_one_line_each(tmp_path: Path) -> None:
    with free_endpoint("ipc") as endpoint:
        with broker_process(tmp_path / "broker", endpoint) as broker:
            asyncio.run(steer(endpoint))
            updates = broker.updates
        lines = broker.log.read_text().splitlines()
    stamp = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ")
    assert all(stamp.match(line) for line in lines)
    told = [stamp.sub("", line) for line in lines]
    assert re.fullmatch(rf"journal in {tmp_path}/broker: 0 rows, read from row 1 on in \d\.\d\d s", told[0])
    assert told[1:] == [
        f"listening at {endpoint}, with updates at {updates}",
        "run (one): attempt_started world size 8",
        "run (one): joined rank 0 on  (pid 0)",
        "run (one): revision 1 by alice: learning_rate",
        "run (one): finished rank 0: trained",
        "leaving, as it was told to",
    ]


def test_a_terminal_that_is_closed_ends_the_broker_as_sigterm_does(tmp_path: Path) -> None:
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "broker", endpoint) as broker:
        broker.process.send_signal(signal.SIGHUP)
        assert broker.process.wait(DEADLINE) == 0
        assert broker.log.read_text().endswith(" INFO leaving, as it was told to\n")


def test_g12_a_terminal_that_is_held_holds_nobody_up(tmp_path: Path) -> None:
    """With nobody who reads its stderr the broker serves all the same, and leaves."""
    fifo = tmp_path / "stderr"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(held, bytes(4096))
    prelude = f"import os; os.dup2(os.open({str(fifo)!r}, os.O_WRONLY), 2)"
    try:
        with (
            free_endpoint("ipc") as endpoint,
            broker_process(tmp_path / "broker", endpoint, prelude=prelude) as broker,
        ):
            asyncio.run(steer(endpoint, changes=20))
            begun = time.monotonic()
            broker.process.send_signal(signal.SIGTERM)
            assert broker.process.wait(DEADLINE) == 0
            assert time.monotonic() - begun < 2.0
    finally:
        os.close(held)
