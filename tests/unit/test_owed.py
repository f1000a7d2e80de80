"""What an operator without credit is told once it has some: each revision's state as it is by then."""

from tests.unit.broker_support import Bench, sent
from zloom import messages as m
from zloom_broker.effects import Effect

CREDIT = 8


def busy(changes: int) -> Bench:
    """Return a bench whose operator has made changes, and tells nothing of what it received."""
    bench = Bench(credit=CREDIT)
    bench.active("a", rank=0, world_size=1)
    bench.operator()
    for number in range(1, changes + 1):
        bench.receive(b"op", change(number))
    return bench


def change(number: int) -> m.SetConfig:
    return m.SetConfig(id=f"q{number}", run="run", changes={"learning_rate": number / 100}, mode="next")


def states(effects: list[Effect]) -> list[tuple[str, bool]]:
    return [(each.id, each.settled) for each in sent(effects, b"op") if isinstance(each, m.RevisionState)]


def test_it_is_told_once_it_has_credit_and_each_state_once() -> None:
    bench = busy(20)
    for number in range(1, 21):
        bench.answer(number, "a")
    told: list[tuple[str, bool]] = []
    for received in range(CREDIT, 60, CREDIT):
        told += states(bench.receive(b"op", m.Credit(received=received)))
    assert {request for request, settled in told if settled} == {f"q{number}" for number in range(1, 21)}
    assert len(told) == len(set(told)), "none twice"


def test_a_pong_gives_credit_too() -> None:
    bench = busy(20)
    (ping,) = [each for each in sent(bench.advance(30.0), b"op") if isinstance(each, m.Ping)][-1:]
    assert states(bench.receive(b"op", m.Pong(id=ping.id, received=CREDIT)))


def test_a_connection_that_is_gone_is_owed_nothing() -> None:
    bench = busy(20)
    bench.core.unroutable(b"op", bench.now)
    bench.operator()
    assert states(bench.receive(b"op", m.Credit(received=2))) == []


def test_what_is_owed_of_an_attempt_goes_with_it() -> None:
    bench = busy(20)
    bench.receive(b"a", m.Goodbye(reason="finished", step=9))
    bench.operator("other")
    bench.receive(b"other", m.Forget(id="f", run="run"))
    bench.active("b", rank=0, world_size=1)
    assert states(bench.receive(b"op", m.Credit(received=CREDIT))) == []


def test_that_a_request_came_again_is_not_forgotten() -> None:
    bench = busy(20)
    bench.receive(b"op", change(20))
    bench.answer(20, "a")
    told: list[m.RevisionState] = []
    for received in range(CREDIT, 60, CREDIT):
        effects = sent(bench.receive(b"op", m.Credit(received=received)))
        told += [each for each in effects if isinstance(each, m.RevisionState) and each.id == "q20"]
    assert [each.duplicate for each in told] == [True]
