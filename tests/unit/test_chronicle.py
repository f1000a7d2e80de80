"""What the log tells at level info."""

from tests.unit.broker_support import Bench, replica
from zloom import messages as m
from zloom_broker.chronicle import BURST, lines


def steered() -> Bench:
    bench = Bench()
    bench.active()
    bench.operator()
    return bench


def test_who_comes_and_goes_is_told() -> None:
    bench = Bench()
    assert list(lines(bench.join())) == [
        "run (one): attempt_started world size 1",
        "run (one): joined rank 0 on host (pid 1)",
    ]
    assert list(lines(bench.receive(b"a", m.Goodbye(reason="trained")))) == [
        "run (one): finished rank 0: trained"
    ]
    bench.join()
    bench.unroutable(b"a")
    assert list(lines(bench.advance(2.0))) == ["run (one): lost rank 0: the connection was closed"]


def test_who_comes_back_on_a_new_connection_is_told_once() -> None:
    before = Bench()
    before.active()
    bench = Bench(before.journal, epoch="second")
    back = ["run (one): reconnected rank 0 on host (pid 1)"]
    assert list(lines(bench.join())) == back
    assert list(lines(bench.join())) == [], "its hello was on its way twice"
    bench.sync()
    hello = m.Hello(protocols=[1], role="weavelet", nonce="other", replica=replica("a"))
    assert list(lines(bench.receive(b"elsewhere", hello))) == [
        "run (one): reconnected rank 0 on host (pid 1)"
    ]


def test_of_a_herd_that_comes_back_in_one_turn_only_the_first_are_told() -> None:
    before = Bench()
    names = [f"r{rank}" for rank in range(100)]
    for rank, name in enumerate(names):
        before.join(name, rank=rank, world_size=100)
    bench = Bench(before.journal, epoch="second")
    hellos = [
        m.Hello(protocols=[1], role="weavelet", nonce=name, replica=replica(name, rank=rank, world_size=100))
        for rank, name in enumerate(names)
    ]
    told = list(lines(bench.turn(*zip(names, hellos, strict=True))))
    assert len(told) == BURST + 1
    assert told[-1] == f"run (one): reconnected and {100 - BURST} more"


def test_a_revision_is_told_once_with_who_and_which_keys() -> None:
    bench = steered()
    assert list(lines(bench.set(learning_rate=0.5, batch_size=8))) == [
        "run (one): revision 1 by alice: learning_rate, batch_size"
    ]
    command = m.SendCommand(id="c", run="run", command="pause")
    assert list(lines(bench.receive(b"op", command))) == ["run (one): revision 2 by alice: pause"]
    cancel = m.Cancel(id="x", run="run", revision=1)
    assert list(lines(bench.receive(b"op", cancel))) == ["run (one): revision 3 by alice: cancel 1"]


def test_what_is_not_on_disk_and_what_is_only_a_report_is_not_told() -> None:
    bench = steered()
    assert list(lines(bench.receive(b"a", m.Status(seq=1, step=1)))) == []
    bench.hold = True
    assert list(lines(bench.set(learning_rate=0.5))) == []
    assert len(list(lines(bench.confirm()))) == 1


def test_of_a_burst_only_the_first_lines_are_told() -> None:
    bench = steered()
    bench.hold = True
    for number in range(100):
        bench.set(f"q{number}", learning_rate=0.5)
    told = list(lines(bench.confirm()))
    assert len(told) == BURST + 1
    assert told[-1] == f"run (one): revision and {100 - BURST} more"


def test_no_peer_can_forge_a_line_or_steer_the_terminal() -> None:
    bench = Bench()
    bench.active()
    bench.operator(user="alice\nrun (one): lost \x1b[2J")
    (line,) = lines(bench.set(learning_rate=0.5))
    assert line.isprintable()
