"""From a journal to the state, and to a new epoch."""

import msgspec
import pytest

from tests.unit.broker_support import Bench, fold
from zloom import messages as m
from zloom_broker.journal import Recovered
from zloom_broker.records import EpochStarted, decode_record, encode
from zloom_broker.recovery import next_epoch, recover
from zloom_broker.state import ERRANDS_KEPT, State


def eventful() -> list[bytes]:
    """Return the journal of a broker to which everything happened."""
    bench = Bench()
    bench.active("a", rank=0, world_size=2)
    bench.active("b", rank=1, world_size=2)
    bench.operator()
    bench.receive(b"op", m.SetConfig(id="q1", run="run", changes={"learning_rate": 0.5}, mode="next"))
    bench.answer(1, "a", "rejected", error="no")
    bench.receive(b"op", m.FailDevice(id="f", device="GPU-1", reason="xid 79"))
    bench.receive(b"b", m.Goodbye())
    bench.unroutable(b"a")
    bench.advance(2.0)
    bench.join("c", run="other", inherit=True)
    bench.receive(b"c", m.Goodbye())
    bench.receive(b"op", m.Forget(id="x", run="other"))
    return bench.journal


def test_a_state_is_recovered_from_rows() -> None:
    journal = eventful()
    rows = list(enumerate(journal, 1))
    assert recover(Recovered(None, 0, rows)).image() == fold(journal).image()


def test_a_state_is_recovered_from_a_snapshot_at_any_row() -> None:
    journal = eventful()
    kinds = {type(decode_record(payload)).__name__ for payload in journal}
    assert len(kinds) == 7, "each kind of record but the epoch"
    for cut in range(len(journal) + 1):
        before = fold(journal[:cut])
        snapshot = encode(before.image())
        rows = list(enumerate(journal, 1))[cut:]
        state = recover(Recovered(snapshot, cut, rows, parts=before.parts()))
        whole = fold(journal)
        assert state.image() == whole.image()
        assert (state.requests, state.errands, state.homes) == (whole.requests, whole.errands, whole.homes)


def test_a_record_of_another_version_is_not_guessed_at() -> None:
    row = msgspec.msgpack.encode({"record": "of the future"})
    with pytest.raises(msgspec.DecodeError):
        recover(Recovered(None, 0, [(1, row)]))


def test_an_epoch_counts_lives_and_tells_copies_apart() -> None:
    state = State()
    first = next_epoch(state, "aa", 5.0)
    assert first == EpochStarted(counter=1, epoch="1-aa", at=5.0)
    state.apply(first)
    assert next_epoch(state, "bb", 6.0).epoch == "2-bb"


def test_errands_are_remembered_up_to_a_bound() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    for number in range(3):
        bench.receive(b"op", m.FailDevice(id=f"f{number}", device="GPU-1"))
    record = decode_record(bench.journal[-1])
    state = fold(bench.journal)
    for number in range(ERRANDS_KEPT):
        state.apply(msgspec.structs.replace(record, request_id=f"more{number}"))
    assert len(state.errands) == ERRANDS_KEPT
    assert ("alice", "f2") not in state.errands
