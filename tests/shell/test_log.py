"""The log on a descriptor that is read, and on one that is not."""

import contextlib
import logging
import os
from collections.abc import Iterator

import pytest

from zloom_broker.log import CLOSE_TIMEOUT, LINES_HELD, LogThread


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def say(handler: LogThread, text: str) -> None:
    handler.handle(logging.makeLogRecord({"msg": text}))


def test_what_was_said_is_written_in_order_before_it_is_closed(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = LogThread(writer)
    for number in range(100):
        say(handler, f"line {number}")
    handler.close()
    os.close(writer)
    with os.fdopen(os.dup(reader)) as file:
        assert file.read().splitlines() == [f"line {number}" for number in range(100)]


def test_nobody_who_logs_waits_for_a_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = LogThread(writer)
    for number in range(LINES_HELD + 500):
        say(handler, f"line {number} {'x' * 100}")
    handler.close()  # returns, though the thread still writes
    lines = []
    with os.fdopen(os.dup(reader)) as file:
        while "were left out" not in (line := file.readline()):
            lines.append(line)
            say(handler, "one more")  # behind those that are held, so that the gap can be told
    left_out = int(line.split()[0])
    assert [each.split()[1] for each in lines] == [str(number) for number in range(len(lines))]
    assert left_out >= 500 - 1
    assert CLOSE_TIMEOUT < 2.0


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    handler = LogThread(writer)
    say(handler, "to nobody")
    handler.close()
    assert not handler._thread.is_alive()
