"""Snapshots that a broker takes beside everything else, on a real journal."""

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.shell.scripted_peer import Peer, connected
from tests.shell.test_server import change, one_of_each
from tests.support import RunningBroker, running_broker
from zloom import messages as m
from zloom.errors import JournalError
from zloom.model import Outcome
from zloom_broker import ledgers, snapshots, tail
from zloom_broker.journal import open_journal, repair, verify
from zloom_broker.records import decode_image, encode


async def history(broker: RunningBroker) -> m.History:
    """Return the whole history of the run."""
    with connected(broker.context, broker.endpoint) as operator:
        await operator.hello()
        answer: m.History = await operator.ask(m.GetHistory(id="h", run="run", limit=1000))
    return answer


async def steered(operator: Peer, numbers: range) -> None:
    """Make so many changes."""
    for number in numbers:
        assert (await operator.ask(change(number))).revision == number


def test_a_start_has_few_rows_to_replay_however_long_the_journal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 4)
    monkeypatch.setattr(tail, "TAIL_LEAST", 1000)
    monkeypatch.setattr(tail, "TAIL_MOST", 4000)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            await steered(operator, range(1, 201))
            found = verify(tmp_path / "broker")
            assert found.ok
            assert found.last_seq > 200
            assert found.last_seq - found.snapshots[0] < 30, "a third, were it by the journal's growth alone"

    asyncio.run(scenario())


def test_a_snapshot_is_prepared_a_revision_at_a_time_beside_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 4)
    monkeypatch.setattr(tail, "TAIL_LEAST", 4000)
    monkeypatch.setattr(snapshots, "PACKING_TIME", 0.0)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, weavelet):
            for number in range(1, 60):
                assert (await operator.ask(change(number))).revision == number
                outcome = Outcome("a", 0, "applied", number)
                weavelet.send(m.Outcomes(epoch=broker.server.epoch, outcomes={number: outcome}))
                await operator.hear(m.Answered, revision=number)
            before = await history(broker)
        with open_journal(tmp_path / "broker") as journal:
            assert journal.recovered.rows == [], "the newest snapshot is that of the end"
        async with running_broker(tmp_path) as broker:
            assert await history(broker) == before
        assert [len(each.outcomes) for each in before.entries] == [1] * 59

    asyncio.run(scenario())
    assert len(verify(tmp_path / "broker").snapshots) == 2, "none was written before the end"


def test_a_broker_ends_in_time_where_the_last_snapshot_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "END_TIME", 0.0)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            await steered(operator, range(1, 5))
            before = await history(broker)
        with open_journal(tmp_path / "broker") as journal:
            assert (journal.recovered.snapshot, len(journal.recovered.rows) > 4) == (None, True)
        async with running_broker(tmp_path) as broker:
            assert await history(broker) == before

    asyncio.run(scenario())


def trigger(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "broker" / "journal.sqlite3")) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_snapshot_that_the_disk_refused_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tail, "TAIL_LEAST", 3000)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            trigger(
                tmp_path,
                "CREATE TRIGGER b BEFORE INSERT ON snapshots BEGIN SELECT RAISE(ABORT, 'no room'); END",
            )
            await steered(operator, range(1, 31))
            assert verify(tmp_path / "broker").snapshots == ()
            assert "a snapshot could not be written: no room" in caplog.messages
            trigger(tmp_path, "DROP TRIGGER b")
            await steered(operator, range(31, 61))
            newest, *_ = verify(tmp_path / "broker").snapshots
            assert newest > 30, "it was not tried again"

    asyncio.run(scenario())


def one_block_less(tmp_path: Path) -> None:
    """Write a snapshot that lacks the attempt's newest revisions, as a bug once made it."""
    with open_journal(tmp_path / "broker") as journal:
        held = journal.recovered
        assert held.snapshot is not None
        image = decode_image(held.snapshot)
        (attempt,) = image.attempts
        short = msgspec.structs.replace(attempt, blocks=attempt.blocks[:-1])
        payload = encode(msgspec.structs.replace(image, attempts=[short]))
        journal.start(lambda _: None, lambda *_: None)
        journal.write_snapshot(held.snapshot_seq, payload, held.parts)


def test_g1_a_snapshot_that_does_not_add_up_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 4)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            await steered(operator, range(1, 12))
            before = await history(broker)
        one_block_less(tmp_path)
        async with running_broker(tmp_path) as broker:
            assert await history(broker) == before
        (said,) = [each for each in caplog.messages if "is not used" in each]
        assert "attempt one of run: it ends at revision 8 with chain" in said
        caplog.clear()
        async with running_broker(tmp_path) as broker:
            assert await history(broker) == before
        assert "is not used" not in caplog.text, "the one that was written at the end is right"

    with caplog.at_level(logging.INFO, "zloom.broker"):
        asyncio.run(scenario())


def test_g1_rows_that_cannot_stand_in_for_such_a_snapshot_are_not_believed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 4)

    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            await steered(operator, range(1, 12))
        one_block_less(tmp_path)
        trigger(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 6")
        async with running_broker(tmp_path):
            pass

    with pytest.raises(JournalError, match=r"in order up to row 5 only, but row \d+ was confirmed"):
        asyncio.run(scenario())


@pytest.mark.parametrize("other", [True, False])
def test_where_rows_were_lost_the_snapshot_before_stands_in_for_one_that_does_not_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 4)

    async def scenario() -> None:
        for first in (1, 12):
            async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
                await steered(operator, range(first, 12 if first == 1 else 14))
                before = await history(broker)
        trigger(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 2")
        assert repair(tmp_path / "broker", accept_loss=True).repaired
        if other:  # as of a row that no other snapshot is of
            async with running_broker(tmp_path):
                pass
        one_block_less(tmp_path)
        async with running_broker(tmp_path) as broker:
            assert await history(broker) == before

    if other:
        asyncio.run(scenario())
        assert len(verify(tmp_path / "broker").snapshots) == 2
    else:
        with pytest.raises(JournalError, match=r"the journal in .*: no snapshot is intact"):
            asyncio.run(scenario())
