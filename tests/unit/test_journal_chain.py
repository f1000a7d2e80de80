from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zloom_broker.journal.chain import GENESIS, ChainBroken, Link, extend, snapshot_digest, verified

Row = tuple[int, object, object]

payloads = st.lists(st.binary(max_size=20), min_size=1, max_size=12)


def rows_of(payloads: list[bytes], start: Link = GENESIS) -> list[Row]:
    rows: list[Row] = []
    for payload in payloads:
        start = extend(start, payload)
        rows.append((start.seq, payload, start.chain))
    return rows


def intact(rows: list[Row], start: Link = GENESIS) -> list[bytes]:
    """The payloads of the rows that verify."""
    kept = []
    try:
        for _, payload in verified(rows, start):
            kept.append(payload)
    except ChainBroken:
        pass
    return kept


def test_hash_is_as_documented() -> None:
    link = extend(Link(6, b"p" * 32), b"payload")
    expected = blake2b(b"p" * 32 + (7).to_bytes(8, "big") + b"payload", digest_size=32)
    assert link == (7, expected.digest())


@given(payloads, st.integers(min_value=0, max_value=1000))
def test_rows_verify_from_any_link(payloads: list[bytes], seq: int) -> None:
    start = Link(seq, blake2b(digest_size=32).digest())
    assert intact(rows_of(payloads, start), start) == payloads


@given(payloads, st.data())
def test_any_flipped_bit_ends_the_verified_rows_there(payloads: list[bytes], data: st.DataObject) -> None:
    rows = rows_of(payloads)
    at = data.draw(st.integers(0, len(rows) - 1))
    seq, payload, chain = rows[at]
    assert isinstance(payload, bytes)
    assert isinstance(chain, bytes)
    content = payload + chain
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    rows[at] = (seq, bytes(damaged[:-32]), bytes(damaged[-32:]))
    assert intact(rows) == payloads[:at]


@given(payloads, st.data())
def test_a_missing_row_ends_the_verified_rows_there(payloads: list[bytes], data: st.DataObject) -> None:
    rows = rows_of(payloads)
    at = data.draw(st.integers(0, len(rows) - 1))
    del rows[at]
    assert intact(rows) == payloads[:at]


@given(payloads)
def test_rows_of_another_journal_do_not_verify(payloads: list[bytes]) -> None:
    other = rows_of(payloads, Link(0, b"\1" * 32))
    assert intact(other) == []


@pytest.mark.parametrize("payload", [None, 3, 2.5, "text"])
def test_a_payload_that_is_no_bytes_is_damage(payload: object) -> None:
    with pytest.raises(ChainBroken, match="row 1 is damaged"):
        list(verified([(1, payload, b"")], GENESIS))


def test_snapshot_hash_covers_row_chain_payload_and_parts_and_is_no_row_hash() -> None:
    link = extend(GENESIS, b"a")
    digests = {
        snapshot_digest(link, b"state", b""),
        snapshot_digest(link, b"stat", b""),
        snapshot_digest(link, b"state", b"part"),
        snapshot_digest(link, b"", b"state"),
        snapshot_digest(link._replace(seq=2), b"state", b""),
        snapshot_digest(link._replace(chain=bytes(32)), b"state", b""),
        blake2b(link.chain + link.seq.to_bytes(8, "big") + b"state", digest_size=32).digest(),
    }
    assert len(digests) == 7
