"""The history of an attempt in blocks: what rests is packed, and is what it was."""

import gc
import weakref
from collections.abc import Iterator
from itertools import islice

import pytest
from msgspec.structs import replace

from bench.instructions import counted
from tests.unit.broker_support import Bench, fold, replica
from tests.unit.test_attempt import accept, answer, attempt_of, leave
from zloom import messages as m
from zloom.model import Outcome, Revision
from zloom_broker import ledgers
from zloom_broker.attempt import Attempt, Places
from zloom_broker.parts import ImageError
from zloom_broker.records import OutcomesRecorded, ReplicaJoined, RevisionAccepted
from zloom_broker.state import State


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_SIZE", 2)


def settled(count: int) -> Attempt:
    """Return an attempt with so many revisions that its replica has applied."""
    attempt = attempt_of("a")
    for number in range(1, count + 1):
        accept(attempt, learning_rate=1 / number)
        answer(attempt, number, "a", "applied")
    return attempt


def pack(attempt: Attempt) -> None:
    for _ in attempt.ledgers.pack():
        pass


def again(attempt: Attempt) -> Attempt:
    return Attempt.restore(attempt.image(), attempt.parts(), {})


def answers(attempt: Attempt) -> Iterator[tuple[int, object, list[object]]]:
    return (
        (each.revision.revision, each.revision.changes, [o.outcome for o in each.outcomes.values()])
        for each in attempt.ledgers
    )


@pytest.mark.usefixtures("_small_blocks")
def test_what_rests_is_let_go_and_made_again() -> None:
    attempt = settled(5)
    objects = [weakref.ref(ledger) for ledger in attempt.ledgers]
    before = list(answers(attempt))

    pack(attempt)
    gc.collect()

    assert [ref() is None for ref in objects] == [True, True, True, True, False], "the last block is not full"
    assert list(answers(attempt)) == before
    assert attempt.ledgers[5].revision.revision == 5
    assert attempt.ledger(0) is attempt.ledger(6) is None
    with pytest.raises(LookupError, match="the newest is 5"):
        attempt.ledgers[6]
    for number in (-1, 0, 6):
        with pytest.raises(LookupError, match=f"no revision {number}; the newest is 5"):
            attempt.ledgers.revision(number)


@pytest.mark.usefixtures("_small_blocks")
def test_a_revision_is_one_object_as_long_as_it_is_held() -> None:
    attempt = settled(4)
    held = attempt.ledgers[1]
    pack(attempt)
    assert attempt.ledgers[1] is held
    made = attempt.ledgers[3]
    assert attempt.ledgers[3] is made
    assert attempt.ledgers.changing(3) is made
    assert attempt.ledgers.changing(1) is held


@pytest.mark.usefixtures("_small_blocks")
def test_a_loss_in_a_packed_block_is_amended() -> None:
    attempt = attempt_of("a")
    for _ in range(4):
        accept(attempt, learning_rate=0.5)
    leave(attempt, "a", lost=True)
    pack(attempt)
    restored = again(attempt)
    assert (restored.losses, restored.doubtful) == ({"a": {1, 2, 3, 4}}, {1, 2, 3, 4})
    restored.join(ReplicaJoined(replica=replica("a"), at=2.0))

    answer(restored, 2, "a", "rejected")

    assert [each.void for each in restored.ledgers] == [False, True, False, False]
    assert (restored.losses, restored.doubtful) == ({"a": {1, 3, 4}}, {1, 3, 4})
    assert again(restored).ledgers[2].outcomes["a"].outcome == "rejected"
    old, new = attempt.ledgers.digests(), restored.ledgers.digests()
    assert (old[0] != new[0], old[1:] == new[1:]) == (True, True), "only the block that changed"


@pytest.mark.usefixtures("_small_blocks")
def test_what_is_not_settled_stays_an_object() -> None:
    attempt = settled(2)
    accept(attempt, learning_rate=0.5)
    accept(attempt, learning_rate=0.25)
    waiting = weakref.ref(attempt.ledgers[3])
    pack(attempt)
    gc.collect()
    assert waiting() is not None
    for each in (attempt, again(attempt)):
        assert list(each.open) == [3, 4]
        assert all(each.open[number] is each.ledgers[number] for number in each.open)


@pytest.mark.usefixtures("_small_blocks")
def test_config_is_known_of_each_revision() -> None:
    attempt = attempt_of("a")
    for number, key in enumerate(["x", "y", "x", "z", "x"], 1):
        accept(attempt, **{key: number})  # type: ignore[arg-type]  # a key of any name
        answer(attempt, number, "a", "rejected" if number == 3 else "applied")
    pack(attempt)
    for each in (attempt, again(attempt)):
        found = [{k: s.revision for k, s in each.config.at(n).items() if s.revision} for n in range(6)]
        assert found == [
            {},
            {"x": 1},
            {"x": 1, "y": 2},
            {"x": 1, "y": 2},
            {"x": 1, "y": 2, "z": 4},
            {"x": 5, "y": 2, "z": 4},
        ]


@pytest.mark.usefixtures("_small_blocks")
def test_a_request_is_known_after_a_restart_whatever_block_it_made() -> None:
    bench = Bench()
    bench.active("a")
    bench.operator()
    for number in range(1, 6):
        bench.receive(b"op", m.SetConfig(id=f"q{number}", run="run", changes={"learning_rate": 0.5}))
        bench.answer(number, "a")
    state = fold(bench.journal)
    for _ in state.pack():
        pass
    restored = State.restore(state.image(), state.parts())
    for each in (state, restored):
        made = [each.made_by(("alice", f"q{number}")) for number in range(1, 6)]
        assert [found and found[1] for found in made] == [1, 2, 3, 4, 5]
        assert each.made_by(("alice", "q6")) is each.made_by(("bob", "q1")) is None
    assert {place[1:] for place in restored.requests["alice"].values()} == {(1, 2), (3, 4), (5, 5)}
    assert {place[1:] for place in state.requests["alice"].values()} == {(n, n) for n in range(1, 6)}


FLEET = [f"run/one/{rank}" for rank in range(1000)]


@pytest.fixture(scope="module")
def wide() -> Attempt:
    """An attempt of a thousand replicas, which have answered twenty revisions, as a restart has it."""
    attempt = attempt_of(*FLEET)
    for number in range(1, 21):
        revision = Revision(number, "config", {"learning_rate": 0.5}, by="alice", request_id=f"q{number}")
        attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=FLEET))
        outcomes = [Outcome(name, rank, "applied", 17) for rank, name in enumerate(FLEET)]
        attempt.record(OutcomesRecorded(run="run", attempt="one", outcomes={number: outcomes}))
    pack(attempt)
    return attempt


def test_a_block_is_bounded_in_bytes_and_told_by_its_requests(wide: Attempt) -> None:
    blocks = wide.ledgers.parts()
    assert max(map(len, blocks.values())) <= ledgers.BLOCK_BYTES + 4096, "its index comes on top"
    assert len(blocks) < 20, "not one for each"
    requests: Places = {}
    restored = Attempt.restore(wide.image(), wide.parts(), requests)
    for each in (wide, restored):
        made = [each.ledgers.made_by("alice", f"q{number}", 1, 20) for number in range(1, 21)]
        assert made == list(range(1, 21))
    place = requests["alice"]["q20"]
    assert restored.ledgers.made_by("alice", "q20", place.first, place.last) == 20
    with pytest.raises(LookupError, match="q21"):
        wide.ledgers.made_by("alice", "q21", 1, 20)


def test_a_block_grows_again_after_it_was_parted() -> None:
    attempt = attempt_of(*FLEET)
    numbers = range(1, 41)
    for number in numbers:
        revision = Revision(number, "config", {"learning_rate": 0.5}, by="alice", request_id=f"q{number}")
        attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=FLEET))
        if number % 3 == 0:
            pack(attempt)
        answer(attempt, number - number % 2 or 1, FLEET[number], "applied")
    for each in (attempt, again(attempt)):
        assert [ledger.revision.revision for ledger in each.ledgers] == list(numbers)
        assert [each.ledgers.made_by("alice", f"q{n}", 1, 40) for n in numbers] == list(numbers)
        assert [revision.revision for revision in each.ledgers.after(7)] == list(range(8, 41))


@pytest.mark.parametrize("turns", range(6))
def test_g1_a_block_may_be_asked_for_while_it_is_parted(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    monkeypatch.setattr(ledgers, "BLOCK_BYTES", 1)
    attempt = settled(3)
    preparing = attempt.ledgers.pack()
    list(islice(preparing, turns))
    attempt.image()
    list(preparing)
    for each in (attempt, again(attempt)):
        assert [revision.revision for revision in each.ledgers.after(0)] == [1, 2, 3]


def test_a_revision_is_read_without_what_became_of_it(wide: Attempt) -> None:
    # Of these a thousand are asked for at once when a fleet comes back a few revisions behind.
    with_ledger = counted(lambda: wide.ledger(3))
    assert counted(lambda: wide.chain_at(7)) < with_ledger / 20
    assert counted(lambda: list(wide.ledgers.after(12))) < with_ledger / 3


def test_a_start_makes_no_object_of_a_revision_that_rests() -> None:
    attempt = attempt_of("a")
    for number in range(1, 20 * ledgers.BLOCK_SIZE + 1):
        revision = Revision(number, "config", {"learning_rate": 0.5}, by="alice", request_id=f"q{number}")
        attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=[]))
    image, parts = attempt.image(), attempt.parts()
    requests: Places = {}

    instructions = counted(lambda: Attempt.restore(image, parts, requests))

    assert len(requests["alice"]) == attempt.revision
    assert instructions < 2 * attempt.revision, "an object of each takes hundreds"


@pytest.mark.parametrize("wrong", ["a block less", "another end"])
@pytest.mark.usefixtures("_small_blocks")
def test_g1_an_image_that_does_not_add_up_is_refused(wrong: str) -> None:
    attempt = settled(5)
    image = attempt.image()
    blocks = image.blocks[1:] if wrong == "a block less" else image.blocks
    other = replace(image, blocks=blocks, chain=b"other")
    with pytest.raises(ImageError, match="attempt one of run: it ends at revision"):
        Attempt.restore(other, attempt.parts(), {})
    parts = attempt.parts()
    del parts[image.blocks[1]]
    with pytest.raises(
        ImageError, match=f"attempt one of run: its part {image.blocks[1].hex()[:16]} is missing"
    ):
        Attempt.restore(image, parts, {})


def test_who_is_there_is_packed_once_for_all_snapshots(wide: Attempt) -> None:
    before = wide.image()
    assert counted(wide.image) < len(FLEET), "a look at each replica"
    leave(wide, FLEET[0], lost=True)
    after = wide.image()
    assert (after.roster != before.roster, after.blocks == before.blocks) == (True, True)
    assert Attempt.restore(after, wide.parts(), {}).left == wide.left
    wide.join(ReplicaJoined(replica=wide.replicas[FLEET[0]], at=2.0))
    assert wide.image() == before


def test_a_streak_of_refused_values_costs_each_the_same() -> None:
    def answered(count: int) -> int:
        attempt = attempt_of("a")
        for number in range(1, count):
            accept(attempt, learning_rate=1 / number)
            answer(attempt, number, "a", "rejected")
        pack(attempt)
        accept(attempt, learning_rate=0.5)
        return counted(lambda: answer(attempt, count, "a", "rejected"), warm_up=lambda: None)

    assert answered(2000) < 2 * answered(20)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("turns", range(20))
def test_g1_nothing_is_lost_that_changes_while_a_snapshot_is_prepared(turns: int) -> None:
    """Between any two turns: the answer that settles a block, a revision that fills one, a loss amended."""
    attempt = attempt_of("a", "b")
    for number in range(1, 6):
        accept(attempt, learning_rate=1 / number)
        answer(attempt, number, "a", "applied")
        answer(attempt, number, "b", "lost" if number == 2 else "applied")
    accept(attempt, learning_rate=0.5)
    answer(attempt, 6, "a", "applied")
    preparing = attempt.ledgers.pack()
    for _ in islice(preparing, turns):
        pass
    answer(attempt, 6, "b", "applied")
    answer(attempt, 2, "b", "applied")
    accept(attempt, learning_rate=0.25)
    expected = [(ledger.revision, ledger.row()) for ledger in attempt.ledgers]
    for _ in preparing:
        pass
    gc.collect()
    for each in (attempt, again(attempt)):
        assert [(ledger.revision, ledger.row()) for ledger in each.ledgers] == expected
