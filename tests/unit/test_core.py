"""What the broker promises, message by message."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from tests.unit import broker_support
from tests.unit.broker_support import BATCH_SIZE, LEARNING_RATE, Bench, events, published, replica
from zloom import messages as m
from zloom.model import Key, Outcome, ReplicaStatus, Schema
from zloom.series import Series
from zloom_broker.effects import Effect, Publish, Send
from zloom_broker.held import MAX_STATUSES

STEER = b"steer/run/one/"
WATCH = b"watch/run/"


def steered(**settings: object) -> Bench:
    """Return a bench with a weavelet `a` in step and an operator."""
    bench = Bench(**settings)  # type: ignore[arg-type]
    bench.active()
    bench.operator()
    return bench


def sent(effects: list[Effect], peer: bytes = b"op") -> list[m.Message]:
    """Return the messages that went to a peer, without the digests of revisions."""
    told = broker_support.sent(effects, peer)
    return [replace(each, chain=b"") if isinstance(each, m.RevisionState) else each for each in told]


def state(revision: int, outcome: Outcome, request_id: str = "q1", **more: object) -> m.RevisionState:
    fields: dict[str, object] = {"settled": outcome.outcome is not None} | more
    return m.RevisionState(
        id=request_id,
        run="run",
        attempt="one",
        revision=revision,
        outcomes=[outcome],
        **fields,  # type: ignore[arg-type]
    )


OPEN = Outcome("a")
APPLIED = Outcome("a", 0, "applied", 5)


# --- G1: durable ----------------------------------------------------------------------------------


def test_g1_nothing_is_told_before_the_commit() -> None:
    bench = steered()
    bench.hold = True
    assert bench.set(learning_rate=0.5) == []
    assert sent(bench.sync(), b"a") == [m.Snapshot(epoch="epoch", revision=0, chain=b"")]
    beats = published(bench.advance(1.0), STEER)
    assert [beat.revision for beat in beats if isinstance(beat, m.Beat)] == [0, 0]
    history = sent(bench.receive(b"op", m.GetHistory(id="h", run="run")))
    assert history == [m.History(id="h", run="run", attempt="one", entries=[])]
    told = bench.confirm()
    assert sent(told) == [state(1, OPEN)]
    assert [type(message) for message in published(told, STEER)] == [m.Revised]


def test_g1_a_failed_commit_discards_it_and_all_after_it() -> None:
    bench = steered()
    bench.hold = True
    bench.set("q1", learning_rate=0.5)
    bench.set("q2", learning_rate=0.25)
    told = bench.fail("disk full")
    text = "the journal could not be written (disk full); nothing was changed"
    assert told == [
        Send(b"op", m.Refusal(id="q1", code="journal_failed", text=text)),
        Send(b"op", m.Refusal(id="q2", code="journal_failed", text=text)),
    ]
    assert sent(bench.set("q2", learning_rate=0.25)) == [state(1, OPEN, "q2")]


def test_g1_a_conflict_with_a_tentative_revision_is_decided_by_its_commit() -> None:
    for fails in (False, True):
        bench = steered()
        bench.hold = True
        bench.set("q1", learning_rate=0.5)
        late = m.SetConfig(id="q2", run="run", changes={"batch_size": 8}, expected_revision=0)
        assert bench.receive(b"op", late) == []
        answer = sent(bench.fail() if fails else bench.confirm())[-1]
        if fails:
            assert answer == state(1, OPEN, "q2")
        else:
            assert isinstance(answer, m.Refusal)
            assert (answer.id, answer.code) == ("q2", "revision_conflict")
            assert "the newest is 1" in answer.text


def test_g1_a_refusal_tells_of_durable_revisions_only() -> None:
    bench = steered()
    bench.hold = True
    bench.set("q1", learning_rate=0.5)
    wrong = m.SetConfig(id="q2", run="run", changes={"batch_size": 8}, expected_revision=7)
    (refusal,) = sent(bench.receive(b"op", wrong))
    assert isinstance(refusal, m.Refusal)
    assert "the newest is 0" in refusal.text


def test_g1_a_buffered_answer_says_so_and_a_command_is_synced() -> None:
    bench = steered(durable=False)
    (change,) = sent(bench.set(learning_rate=0.5))
    (command,) = sent(bench.receive(b"op", m.SendCommand(id="q2", run="run", command="pause")))
    assert isinstance(change, m.RevisionState)
    assert isinstance(command, m.RevisionState)
    assert (change.durable, command.durable) == (False, True)


@pytest.mark.parametrize("request_", [m.FailDevice(id="q", device="GPU-1"), m.Forget(id="q", run="run")])
def test_g1_an_errand_that_cannot_be_written_is_refused(request_: m.FailDevice | m.Forget) -> None:
    bench = steered()
    if isinstance(request_, m.Forget):
        bench.receive(b"a", m.Goodbye())
    bench.hold = True
    assert bench.receive(b"op", request_) == []
    (refusal,) = sent(bench.fail())
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "journal_failed"
    assert isinstance(sent(bench.receive(b"op", request_))[0], m.Done)


def test_g1_a_hello_that_cannot_be_written_waits() -> None:
    bench = Bench()
    bench.hold = True
    assert bench.join() == []
    assert bench.fail() == [
        Send(b"a", m.Wait(reason="the journal could not be written: disk full", retry=1.0))
    ]
    assert events(bench.join()) == ["attempt_started", "joined"]


def test_g1_a_departure_that_cannot_be_written_is_tried_again() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.hold = True
    bench.receive(b"a", m.Goodbye(reason="done"))
    assert bench.fail() == []
    told = bench.advance(1.0)
    assert events(told) == ["finished"]
    assert sent(told)[-1] == state(1, Outcome("a", 0, "not_reached", error="done"))


# --- G2, G3: in order, late joiners ---------------------------------------------------------------


def test_g2_a_weavelet_gets_the_log_after_its_position() -> None:
    bench = steered()
    for number in range(3):
        bench.set(f"q{number}", learning_rate=0.5)
    chain = bench.core.state.attempts["run", "one"].chain_at(1)
    (log,) = sent(bench.sync("a", 1, chain), b"a")
    assert isinstance(log, m.Log)
    assert [revision.revision for revision in log.revisions] == [2, 3]


@pytest.mark.parametrize("number", [1, 9])
@pytest.mark.parametrize("kind", [m.Follow, m.Cancel])
def test_g4_who_means_a_revision_of_a_history_that_was_replaced_is_told(
    kind: type[m.Follow | m.Cancel], number: int
) -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    (state,) = broker_support.sent(bench.set(learning_rate=0.5))
    assert isinstance(state, m.RevisionState)
    assert state.chain == bench.core.state.attempts["run", "one"].chain
    (same,) = sent(bench.receive(b"op", kind(id="same", run="run", revision=1, chain=state.chain)))
    assert isinstance(same, m.RevisionState)
    (other,) = sent(bench.receive(b"op", kind(id="other", run="run", revision=number, chain=b"another")))
    assert isinstance(other, m.Refusal)
    assert other.code == "history_replaced"


def test_g2_another_history_is_rolled_back() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.answer(1)
    told = bench.sync("a", 1, b"another chain")
    (snapshot,) = sent(told, b"a")
    assert isinstance(snapshot, m.Snapshot)
    assert (snapshot.rolled_back, snapshot.config) == (True, {"learning_rate": 0.5})
    assert events(told) == ["rolled_back"]


def test_g4_a_rollback_brings_the_commands_that_are_not_answered() -> None:
    """Only the replica knows what it carried out of the history that is gone."""
    bench = steered()
    bench.receive(b"op", m.SendCommand(id="q", run="run", command="pause"))
    (snapshot,) = sent(bench.sync("a", 9, b"?"), b"a")
    assert isinstance(snapshot, m.Snapshot)
    assert [revision.revision for revision in snapshot.pending] == [1]
    assert bench.core.state.attempts["run", "one"].ledgers[1].outcomes == {}


def test_g3_what_came_between_hello_and_sync_is_still_to_come() -> None:
    """It is one of the targets, so it must answer, and it answers only what is delivered."""
    bench = steered()
    bench.set("q1", learning_rate=0.5)
    bench.answer(1)
    bench.receive(b"a", m.Goodbye())
    bench.join("b")
    bench.set("q2", batch_size=8)
    (snapshot,) = sent(bench.sync("b"), b"b")
    assert isinstance(snapshot, m.Snapshot)
    assert snapshot.revision == 2
    assert snapshot.config == {"learning_rate": 0.5}
    assert [revision.revision for revision in snapshot.pending] == [2]


def test_g3_the_echo_follows_the_subscription() -> None:
    bench = Bench()
    told = bench.subscription(b"echo/n-a/", present=True)
    assert told == [Publish(b"echo/n-a/", m.Echo(nonce="n-a"))]


# --- G4: answered ---------------------------------------------------------------------------------


def test_g4_an_outcome_is_acknowledged_once_it_is_on_disk() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.hold = True
    assert bench.answer(1) == []
    assert bench.answer(1) == []
    assert bench.recorded() == []
    bench.receive(b"a", m.Pong(id=1, received=3))
    told = bench.confirm()
    assert sent(told, b"a") == []
    assert sent(told) == [state(1, APPLIED)]
    assert bench.recorded() == [1]
    bench.receive(b"a", m.Pong(id=2, received=4))
    assert bench.answer(1) == []
    assert bench.recorded() == [1], "it was sent again, so the ping did not arrive"


def test_g4_outcomes_before_the_first_sync_may_be_of_another_history() -> None:
    bench = Bench()
    bench.join()
    bench.operator()
    bench.set(learning_rate=0.5)
    assert bench.answer(1) == []
    bench.sync()
    assert sent(bench.answer(1)) == [state(1, APPLIED)]


def test_g4_a_lost_replica_that_comes_back_amends_its_outcome() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.unroutable(b"a")
    assert sent(bench.advance(2.0))[-1] == state(
        1, Outcome("a", 0, "lost", error="the connection was closed")
    )
    assert sent(bench.receive(b"a", m.Status(seq=1, step=1)), b"a") == [m.HelloRequired()]
    assert events(bench.join()) == ["returned"]
    bench.sync()
    bench.answer(1)
    (answer,) = sent(bench.receive(b"op", m.Follow(id="f", run="run", revision=1)))
    assert answer == state(1, APPLIED, "f")


def test_g4_a_revision_accepted_while_its_target_leaves_is_answered() -> None:
    bench = steered()
    bench.hold = True
    bench.receive(b"a", m.Goodbye(reason="done"))
    bench.set(learning_rate=0.5)
    told = bench.confirm()
    assert sent(told) == [state(1, Outcome("a", 0, "not_reached", error="done"))]


def test_g4_a_departure_ends_what_was_accepted_while_it_was_written() -> None:
    bench = steered()
    bench.hold = True
    bench.set(learning_rate=0.5)
    bench.receive(b"a", m.Goodbye(reason="done"))
    assert sent(bench.confirm()) == [
        state(1, OPEN),
        state(1, Outcome("a", 0, "not_reached", error="done")),
    ]


def test_g4_one_that_is_replaced_is_no_target_any_more() -> None:
    bench = steered()
    bench.unroutable(b"a")
    bench.advance(2.0)
    bench.join("b")
    (answer,) = sent(bench.set(learning_rate=0.5))
    assert answer == state(1, Outcome("b"))


# --- G5: once -------------------------------------------------------------------------------------


def test_g5_a_request_has_one_effect() -> None:
    bench = steered()
    bench.hold = True
    bench.set("q1", learning_rate=0.5)
    bench.set("q1", learning_rate=0.5)
    bench.operator("op2")
    bench.set("q1", b"op2", learning_rate=0.5)
    told = bench.confirm()
    assert (sent(told), sent(told, b"op2")) == ([state(1, OPEN)], [state(1, OPEN)])
    assert sent(bench.set("q1", learning_rate=0.5)) == [state(1, OPEN, duplicate=True)]


def test_g5_a_request_has_one_effect_after_a_restart() -> None:
    bench = steered()
    bench.set("q1", learning_rate=0.5)
    again = Bench(bench.journal, epoch="next")
    again.operator()
    assert sent(again.set("q1", learning_rate=0.5)) == [state(1, OPEN, duplicate=True)]


def test_g5_another_body_under_the_same_id_is_refused() -> None:
    bench = steered()
    bench.set("q1", learning_rate=0.5)
    for request in (
        m.SetConfig(id="q1", run="run", changes={"learning_rate": 0.25}),
        m.FailDevice(id="q1", device="GPU-1"),
    ):
        (refusal,) = sent(bench.receive(b"op", request))
        assert isinstance(refusal, m.Refusal)
        assert refusal.code == "request_id_reused"
    bench.operator("op2", "bob")
    assert isinstance(sent(bench.set("q1", b"op2", learning_rate=0.25), b"op2")[0], m.RevisionState)


def test_g5_an_errand_is_done_once() -> None:
    bench = steered()
    request = m.FailDevice(id="q", device="GPU-1", reason="xid 79")
    bench.hold = True
    bench.receive(b"op", request)
    bench.receive(b"op", request)
    told = bench.confirm()
    assert len(sent(told, b"a")) == 1
    done = m.Done(id="q", replicas=["a"])
    assert sent(told) == [done]
    again = Bench(bench.journal, epoch="next")
    again.operator()
    assert sent(again.receive(b"op", request)) == [done]


def test_g5_forgetting_twice_is_forgetting_once() -> None:
    bench = steered()
    bench.receive(b"a", m.Goodbye())
    request = m.Forget(id="q", run="run")
    bench.hold = True
    bench.receive(b"op", request)
    bench.receive(b"op", request)
    (other,) = sent(bench.receive(b"op", m.Forget(id="q2", run="run")))
    assert isinstance(other, m.Refusal)
    done = m.Done(id="q", replicas=["a"], attempt="one")
    assert sent(bench.confirm()) == [done]
    assert sent(bench.receive(b"op", request)) == [done]
    assert sent(bench.receive(b"op", m.GetRuns(id="r"))) == [m.Runs(id="r", runs=[])]


def test_nothing_happens_to_an_attempt_that_is_being_forgotten() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.receive(b"a", m.Goodbye())
    bench.hold = True
    bench.receive(b"op", m.Forget(id="f", run="run"))
    (wait,) = sent(bench.join("b"), b"b")
    assert wait == m.Wait(reason="run (one) is being forgotten", retry=1.0)
    (refusal,) = sent(bench.receive(b"op", m.Cancel(id="c", run="run", revision=1)))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "unknown_attempt"
    assert events(bench.confirm()) == ["forgotten"]


def test_an_attempt_that_somebody_joins_is_not_forgotten() -> None:
    bench = steered()
    bench.receive(b"a", m.Goodbye())
    bench.hold = True
    bench.join("b")
    (refusal,) = sent(bench.receive(b"op", m.Forget(id="f", run="run")))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "still_live"


# --- G6: validated --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"learning_rat": 0.5}, "unknown_key", "did you mean learning_rate?"),
        (
            {"learning_rate": 2.0},
            "out_of_bounds",
            "learning_rate: 2.0 is out of bounds; expected number > 0, <= 1",
        ),
        ({"learning_rate": float("nan")}, "bad_value", "learning_rate: nan"),
        ({"batch_size": 8.0}, "wrong_type", "batch_size: 8.0 is not an integer"),
        ({"learning_rate": 0.5, "batch_size": 0}, "out_of_bounds", "batch_size: 0"),
        ({}, "bad_value", "no key was named"),
    ],
)
def test_g6_a_bad_update_is_refused_whole(changes: dict[str, float], code: str, words: str) -> None:
    bench = steered()
    before = list(bench.journal)
    (refusal,) = bench.receive(b"op", m.SetConfig(id="q", run="run", changes=dict(changes)))
    assert isinstance(refusal, Send)
    assert isinstance(refusal.message, m.Refusal)
    assert refusal.message.code == code
    assert words in refusal.message.text
    assert bench.journal == before


def test_g6_a_value_must_satisfy_every_replica() -> None:
    bench = steered()
    bench.join("b", rank=1, world_size=2, keys=[Key("learning_rate", Schema(["number"], maximum=0.3), 0.1)])
    narrow = m.SetConfig(id="q", run="run", changes={"learning_rate": 0.5}, mode="next")
    (refusal,) = sent(bench.receive(b"op", narrow))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "out_of_bounds"


def test_g6_declarations_count_from_their_commit() -> None:
    bench = steered()
    bench.hold = True
    declare = m.Declare(seq=2, keys=[BATCH_SIZE], commands=[])
    assert bench.receive(b"a", declare) == []
    assert bench.receive(b"a", declare) == []
    assert len(bench.waiting) == 1
    assert bench.confirm() == [Send(b"a", m.Declared(seq=2))]
    (refusal,) = sent(bench.set(learning_rate=0.5))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "unknown_key"


@pytest.mark.parametrize("written", [True, False])
def test_who_sees_a_step_sees_what_was_declared_before_it(written: bool) -> None:
    bench = steered()
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"a", m.Status(seq=1, step=7, metrics={"loss": Series.of([7], [0.5])}))
    bench.receive(b"a", m.Declare(seq=3, keys=[LEARNING_RATE], commands=[]))
    bench.receive(b"a", m.Status(seq=2, step=8))
    bench.receive(b"a", m.Goodbye())
    assert _replica(bench).step is None
    if written:
        bench.confirm(1)
        assert set(bench.core.state.attempts["run", "one"].keys()) == {"batch_size"}
        assert _replica(bench).step == 7, "it does not wait for what was declared after it"
        bench.confirm()
    else:
        bench.fail()
    gone = _replica(bench)
    assert (gone.state, gone.step, gone.metrics) == ("finished", 8, {"loss": 0.5}), "nothing was lost by it"


@pytest.mark.parametrize("written", [True, False])
def test_a_disk_that_hangs_holds_up_the_newest_statuses_and_the_others_are_counted(written: bool) -> None:
    bench = steered()
    (first,) = published(bench.receive(b"a", m.Status(seq=1, step=1)), WATCH)
    assert isinstance(first, m.Reported)
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    for seq in range(2, 2000):
        bench.receive(b"a", m.Status(seq=seq, step=seq, metrics={"loss": Series.of([seq], [0.5])}))
    assert _replica(bench).step == 1
    told = [
        each
        for each in published(bench.confirm() if written else bench.fail(), WATCH)
        if isinstance(each, m.Reported)
    ]
    assert [each.status.step for each in told] == list(range(2000 - MAX_STATUSES, 2000))
    dropped = 1998 - MAX_STATUSES
    assert told[0].seq == first.seq + dropped + 1, "who watches sees that they are missing"
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    assert stats.counters["statuses_dropped"] == dropped
    assert "status_missed" not in stats.counters, "each is counted once"


def test_one_whose_statuses_a_disk_holds_up_hears_that_they_arrive_and_streams_no_more() -> None:
    bench = steered()
    bench.subscription(b"echo/n-a/", present=True)
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    heard: list[int] = []
    for beat in range(1, 31):
        told = [bench.receive(b"a", m.Status(seq=4 * beat + n, step=beat)) for n in range(4)]
        told.append(bench.advance(1.0))
        heard += [beat for effects in told for each in sent(effects, b"a") if isinstance(each, m.Credit)]
    assert 10 <= len(heard) <= 20
    gaps = [later - before for before, later in pairwise([0, *heard, 31])]
    assert max(gaps) < 6, "it would make its sockets anew"


def test_declarations_come_to_the_disk_one_at_a_time_and_the_newest_in_the_end() -> None:
    bench = steered()
    bench.hold = True
    for seq in range(2, 1000):
        keys = [[BATCH_SIZE], [LEARNING_RATE], [], [LEARNING_RATE, BATCH_SIZE]][seq % 4]
        bench.receive(b"a", m.Declare(seq=seq, keys=keys, commands=[]))
    bench.receive(b"a", m.Declare(seq=1000, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"a", m.Status(seq=1, step=7))
    assert len(bench.waiting) == 1
    assert sent(bench.confirm(1), b"a") == [m.Declared(seq=2)]
    assert _replica(bench).step is None, "it is behind the newest too"
    assert m.Declared(seq=1000) in sent(bench.confirm(), b"a")
    assert set(bench.core.state.attempts["run", "one"].keys()) == {"batch_size"}
    assert _replica(bench).step == 7


def _replica(bench: Bench) -> ReplicaStatus:
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="q")))
    assert isinstance(answer, m.Replicas)
    (one,) = answer.replicas
    return one


def test_declaring_back_while_it_is_written_ends_with_the_newest() -> None:
    bench = steered()
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"a", m.Declare(seq=3, keys=[LEARNING_RATE, BATCH_SIZE], commands=[]))
    assert sent(bench.confirm(), b"a") == [m.Declared(seq=2), m.Declared(seq=3)]
    assert set(bench.core.state.attempts["run", "one"].keys()) == {"learning_rate", "batch_size"}


# --- who may say what -----------------------------------------------------------------------------


def test_a_stranger_must_say_hello() -> None:
    assert Bench().receive(b"x", m.GetRuns(id="q")) == [Send(b"x", m.HelloRequired())]


def test_an_operator_has_no_outcomes_and_a_weavelet_no_requests() -> None:
    bench = steered()
    (error,) = sent(bench.receive(b"op", m.Status(seq=1, step=1)))
    assert isinstance(error, m.Error)
    assert error.code == "not_allowed"
    (refusal,) = sent(bench.set("q", b"a", learning_rate=0.5), b"a")
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "not_allowed"


def test_an_operator_that_said_goodbye_is_forgotten() -> None:
    bench = steered()
    assert bench.receive(b"op", m.Goodbye()) == []
    assert bench.receive(b"op", m.GetRuns(id="q")) == [Send(b"op", m.HelloRequired())]


def test_a_replica_that_left_keeps_its_last_step_and_metrics() -> None:
    bench = steered()
    bench.receive(b"a", m.Status(seq=1, step=7, metrics={"loss": Series.of([7], [0.5])}))
    bench.receive(b"a", m.Goodbye(step=9))
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="q")))
    assert isinstance(answer, m.Replicas)
    (replica,) = answer.replicas
    assert (replica.state, replica.step, replica.metrics) == ("finished", 9, {"loss": 0.5})


def test_a_gap_counts_for_what_a_counter_can_hold() -> None:
    bench = steered()
    for seq in (1, 4, 2**63):
        bench.receive(b"a", m.Status(seq=seq, step=1))
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    assert stats.counters["status_missed"] == 1_000_002


def test_an_answer_that_is_too_long_is_a_refusal_under_its_id() -> None:
    bench = steered()
    keys = m.Keys(id="k", run="run", attempt="one", revision=0, keys=[], commands=[])
    (told,) = bench.core.too_long(Send(b"op", keys))
    assert isinstance(told, Send)
    assert isinstance(told.message, m.Refusal)
    assert (told.message.id, told.message.code) == ("k", "too_large")
    (told,) = bench.core.too_long(Send(b"op", state(1, OPEN)))
    assert isinstance(told, Send)
    assert isinstance(told.message, m.Error)


def test_read_only_lets_the_known_read_and_nobody_write() -> None:
    written = steered()
    written.set(learning_rate=0.5)
    bench = Bench(written.journal, read_only="head is shorter", epoch="next")
    bench.operator()
    assert isinstance(sent(bench.join(), b"a")[0], m.Welcome)
    (snapshot,) = sent(bench.sync(), b"a")
    assert isinstance(snapshot, m.Snapshot)
    assert snapshot.revision == 1
    unheard = sent(bench.sync("a", 7, b"newer"), b"a")
    assert unheard == [m.Credit(received=3)], "a damaged journal must not roll trainers back"
    (wait,) = sent(bench.join("b", rank=1, world_size=2), b"b")
    assert isinstance(wait, m.Wait)
    assert "head is shorter" in wait.reason
    (refusal,) = sent(bench.set("q9", learning_rate=0.5))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "read_only"
    assert bench.answer(1) == []


def test_names_are_checked_at_the_door() -> None:
    bench = Bench()
    for bad in (replica("a/b"), replica("a", run="r/x"), replica("a", keys=[Key("", Schema(["string"]))])):
        hello = m.Hello(protocols=[1], role="weavelet", nonce="n", replica=bad)
        (told,) = sent(bench.receive(b"a", hello), b"a")
        assert isinstance(told, m.Error)
        assert told.code == "bad_name"


def test_g4_an_outcome_of_another_history_is_not_taken_for_one_of_this() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    bench.answer(1, chain=b"of a history that a backup replaced")
    assert bench.recorded() == []
    bench.receive(b"a", m.Pong(id=1, received=4))
    bench.answer(1)
    assert bench.recorded() == [1]


def test_a_key_that_waits_for_a_step_is_not_changed_behind_its_back() -> None:
    bench = steered()
    later = m.SetConfig(id="q1", run="run", changes={"learning_rate": 0.5}, mode="at_step", at_step=100)
    bench.receive(b"op", later)
    (refusal,) = sent(bench.set("q2", learning_rate=0.1))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "key_pending"
    assert "waits in revision 1 for step 100" in refusal.text
    (accepted,) = sent(bench.set("q3", batch_size=4))
    assert isinstance(accepted, m.RevisionState)


def test_a_declaration_after_the_goodbye_does_not_bring_the_replica_back() -> None:
    bench = steered()
    bench.hold = True
    bench.receive(b"a", m.Goodbye())
    assert bench.receive(b"a", m.Declare(seq=1, keys=[], commands=[])) == []
    assert events(bench.confirm()) == ["finished"]
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="q")))
    assert isinstance(answer, m.Replicas)
    assert [replica.state for replica in answer.replicas] == ["finished"]
