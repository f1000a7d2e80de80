"""When a snapshot is due: a start reads little, and snapshots cost in proportion to rows."""

import pytest

from zloom_broker import tail
from zloom_broker.tail import Tail

LEAST, MOST = tail.TAIL_LEAST, tail.TAIL_MOST


@pytest.mark.parametrize(
    ("snapshot", "due"),
    [(0, LEAST), (LEAST, LEAST), (4 * LEAST, 2 * LEAST), (MOST, MOST // 2), (100 * MOST, MOST)],
)
def test_a_tail_is_long_by_its_bytes(snapshot: int, due: int) -> None:
    assert not Tail(due - 1, snapshot).is_long
    assert Tail(due, snapshot).is_long


def test_a_snapshot_that_wrote_much_is_followed_by_half_as_much_of_rows() -> None:
    # A state of which all changes all the time must not be written whole for each few rows.
    rows = Tail(MOST, 100 * MOST)
    rows.snapshot(100 * MOST, written=6 * MOST)
    assert rows.size == 0
    rows.size = 3 * MOST - 1
    assert not rows.is_long
    rows.size += 1
    assert rows.is_long


def test_the_rows_of_a_snapshot_that_failed_count_again() -> None:
    rows = Tail(LEAST, 0)
    rows.snapshot(LEAST, written=LEAST)
    rows.size += 10
    rows.failed()
    assert (rows.size, rows.is_long) == (LEAST + 10, False), "not at once, or a full disk were all it does"
    rows.size += LEAST
    assert rows.is_long
    rows.snapshot(LEAST, written=LEAST)
    rows.size = LEAST
    assert rows.is_long


@pytest.mark.parametrize("row", [500, 60_000])
def test_what_snapshots_write_is_in_proportion_to_rows(row: int) -> None:
    """Whatever a row has: with an image that is written each time, and all rows in blocks that rest."""
    image = 200_000
    rows = Tail(0, 0)
    journaled = written = longest = 0
    for _ in range(200 * MOST // row // 10):
        rows.size += row
        journaled += row
        longest = max(longest, rows.size)
        if rows.is_long:
            fresh = image + rows.size
            written += fresh
            rows.snapshot(image + journaled, fresh)
    assert longest <= MOST + image + row
    assert written < 1.5 * journaled
