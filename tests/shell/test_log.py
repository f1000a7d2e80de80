"""The log on a descriptor that is read, and on one that is not."""

import contextlib
import logging
import os
from collections.abc import Iterator

import pytest

from tests.support import DEADLINE
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


def fill(writer: int) -> int:
    """Write to a pipe until it takes no more; return how many bytes it took."""
    os.set_blocking(writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b"." * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b".")
    os.set_blocking(writer, True)
    return filled


def test_nobody_who_logs_waits_for_a_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    filled = fill(writer)
    handler = LogThread(writer)
    for number in range(LINES_HELD + 500):
        say(handler, f"line {number}")
    handler.close()  # returns, though the thread still writes
    assert handler._thread.is_alive()
    with os.fdopen(os.dup(reader)) as file:
        file.read(filled)
        lines = [file.readline(), file.readline()]
        handler.close()  # there is room now for the word that ends the thread
        left_out = int(lines.pop().split()[0])
        lines += [file.readline() for _ in range(LINES_HELD + 500 - left_out - 1)]
    handler._thread.join(DEADLINE)
    assert not handler._thread.is_alive()
    assert left_out in (500, 500 - 1)  # the thread holds one line, or none yet
    assert [each.split()[1] for each in lines] == [str(number) for number in range(len(lines))]
    assert CLOSE_TIMEOUT < 2.0


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    handler = LogThread(writer)
    say(handler, "to nobody")
    handler.close()
    assert not handler._thread.is_alive()
