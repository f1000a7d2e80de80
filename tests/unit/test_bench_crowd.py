"""bench.crowd: how weavelets are shared out."""

import pytest

from bench.crowd import shares


@pytest.mark.parametrize(("total", "parts", "processes"), [(1, 4, 1), (10, 4, 4), (1000, 4, 4), (3, 4, 3)])
def test_each_rank_is_in_one_process_and_no_process_is_empty(total: int, parts: int, processes: int) -> None:
    found = shares(total, parts)

    assert len(found) == processes
    assert [rank for ranks in found for rank in ranks] == list(range(total))
    assert max(map(len, found)) - min(map(len, found)) <= 1
