"""The requests that only read."""

from typing import Any

import pytest

from tests.unit.broker_support import GPU, Bench, sent
from zloom import messages as m
from zloom.codec import MAX_MESSAGE_SIZE, encode
from zloom.model import Device, DeviceStatus, Key, Schema
from zloom.series import Series


def steered() -> Bench:
    """Return a bench with a weavelet in step and an operator."""
    bench = Bench()
    bench.active()
    bench.operator()
    return bench


def ask(bench: Bench, request: Any) -> Any:
    (answer,) = sent(bench.receive(b"op", request))
    return answer


def test_keys_tell_their_value_and_where_it_comes_from() -> None:
    bench = steered()
    bench.set(learning_rate=0.5)
    keys = ask(bench, m.GetKeys(id="k", run="run"))
    by_name = {state.key.name: state for state in keys.keys}
    rate, size = by_name["learning_rate"], by_name["batch_size"]
    assert (rate.value, rate.revision, rate.pending) == (0.5, 1, True)
    assert (size.value, size.revision, size.pending) == (32, 0, False)
    assert [command.name for command in keys.commands] == ["pause"]
    bench.answer(1)
    assert not ask(bench, m.GetKeys(id="k2", run="run")).keys[0].pending


def test_keys_tell_whether_more_may_be_declared() -> None:
    bench = steered()
    assert ask(bench, m.GetKeys(id="k", run="run")).early
    bench.receive(b"a", m.Status(seq=1, step=1))
    assert not ask(bench, m.GetKeys(id="k2", run="run")).early


def test_a_run_that_is_over_declares_nothing_more() -> None:
    bench = steered()
    bench.receive(b"a", m.Goodbye(reason="finished"))
    assert not ask(bench, m.GetKeys(id="k", run="run")).early


def test_a_replica_is_told_as_it_reported_last() -> None:
    bench = steered()
    report = m.Status(
        seq=1,
        step=7,
        phase="saving",
        step_time=0.5,
        revision=3,
        metrics={"loss": Series.of([6, 7], [2.0, 1.5])},
        devices=[DeviceStatus("GPU-1", 0.9)],
    )
    bench.receive(b"a", report)
    bench.now += 0.25
    (status,) = ask(bench, m.GetReplicas(id="r", run="run")).replicas
    assert (status.step, status.phase, status.revision, status.step_time) == (7, "saving", 3, 0.5)
    assert (status.metrics, status.seen, status.state) == ({"loss": 1.5}, 0.25, "live")
    (device,) = ask(bench, m.GetDevices(id="d")).devices
    assert (device.device, device.status, device.replicas) == (GPU, DeviceStatus("GPU-1", 0.9), ["a"])


def test_what_is_left_of_a_pause_shrinks_by_the_brokers_clock() -> None:
    bench = steered()

    def left() -> tuple[str, float | None]:
        (status,) = ask(bench, m.GetReplicas(id="r", run="run")).replicas
        return status.state, status.pause_left

    bench.receive(b"a", m.Status(seq=1, step=7, paused=True, pause_left=0.75))
    bench.now += 0.5
    assert left() == ("paused", 0.25)
    bench.now += 0.5
    assert left() == ("paused", 0.0)  # as it has not told yet that it goes on
    bench.receive(b"a", m.Status(seq=2, step=7, paused=True))
    assert left() == ("paused", None)
    bench.receive(b"a", m.Status(seq=3, step=7, pause_left=60.0))
    assert left() == ("live", None)


def test_a_device_that_failed_says_so_and_serves_several() -> None:
    bench = steered()
    bench.join("b", rank=1, world_size=2, devices=[GPU, Device("GPU-2", "Another", "gpu", 1)])
    ask_all = m.FailDevice(id="f", device="GPU-1", reason="xid 79")
    bench.receive(b"op", ask_all)
    devices = {each.device.id: each for each in ask(bench, m.GetDevices(id="d")).devices}
    assert (devices["GPU-1"].failed, devices["GPU-1"].replicas) == ("xid 79", ["a", "b"])
    assert devices["GPU-2"].failed == ""


def test_runs_are_listed_oldest_first_and_the_one_with_replicas_is_meant() -> None:
    bench = steered()
    bench.join("b", attempt="two")
    bench.receive(b"b", m.Goodbye())
    runs = ask(bench, m.GetRuns(id="r")).runs
    assert [(run.attempt, run.live, run.replicas) for run in runs] == [("one", 1, 1), ("two", 0, 1)]
    assert ask(bench, m.GetKeys(id="k", run="run")).attempt == "one"
    bench.receive(b"a", m.Goodbye())
    assert ask(bench, m.GetKeys(id="k2", run="run")).attempt == "two"


def test_the_run_status_tells_which_attempt_is_taken_also_where_it_does_not_answer() -> None:
    bench = steered()
    bench.active("b", attempt="two")
    bench.active("c", run="other")
    for name in "abc":
        bench.subscription(f"echo/n-{name}/".encode(), present=True)
    for _ in range(12):  # only a answers
        bench.advance(1.0)
        bench.receive(b"a", m.Pong(id=bench.core._hub.vitals["a"].ping_id, received=1))
    runs = ask(bench, m.GetRuns(id="r")).runs
    assert [(each.run, each.attempt, each.live, each.chosen) for each in runs] == [
        ("run", "one", 1, False),
        ("run", "two", 0, True),
        ("other", "one", 0, True),
    ]
    assert ask(bench, m.GetKeys(id="k", run="run")).attempt == "two"


def test_a_clock_that_is_set_back_does_not_reorder_attempts() -> None:
    bench = steered()
    bench.receive(b"a", m.Goodbye())
    bench.core.on_timer(bench.now, -5000.0, {}, {})
    bench.join("b", attempt="two")
    again = Bench(bench.journal, epoch="next")
    again.operator()
    assert ask(again, m.GetKeys(id="k", run="run")).attempt == "two"


def test_history_comes_in_pages_newest_first() -> None:
    bench = steered()
    for number in range(5):
        bench.set(f"q{number}", learning_rate=0.5)
    page = ask(bench, m.GetHistory(id="h", run="run", limit=2))
    assert ([entry.revision.revision for entry in page.entries], page.more) == ([5, 4], True)
    page = ask(bench, m.GetHistory(id="h2", run="run", before=4))
    assert ([entry.revision.revision for entry in page.entries], page.more) == ([3, 2, 1], False)
    page = ask(bench, m.GetHistory(id="h3", run="run", before=1))
    assert (page.entries, page.more) == ([], False)


def test_a_page_of_history_fits_into_a_message() -> None:
    bench = Bench()
    bench.active(keys=[Key("text", Schema(["string"]), "")])
    bench.operator()
    for number in range(20):
        bench.receive(b"op", m.SetConfig(id=f"q{number}", run="run", changes={"text": "x" * 60_000}))
    page = ask(bench, m.GetHistory(id="h", run="run"))
    assert page.more
    assert len(encode(page)) < MAX_MESSAGE_SIZE
    log = sent(bench.sync("a", 0, b""), b"a")[0]
    assert isinstance(log, m.Log)
    assert log.more
    assert len(encode(log)) < MAX_MESSAGE_SIZE


CROWD = 8000
"""Enough for a list of any kind to be longer than a message."""


@pytest.fixture(scope="module")
def crowd() -> Bench:
    """Attempts of which nobody lives but the last replica, which has as many devices."""
    bench = Bench()
    for number in range(CROWD):
        bench.join(f"r{number}", attempt=f"try-{number:0110}", host="h" * 255, devices=[])
        if number < CROWD - 1:
            bench.receive(f"r{number}".encode(), m.Goodbye(reason="r" * 255))
    devices = [Device(f"GPU-{number}", "x" * 300, "gpu", number) for number in range(CROWD)]
    bench.join(f"r{CROWD - 1}", attempt=f"try-{CROWD - 1:0110}", host="h" * 255, devices=devices)
    bench.operator()
    return bench


LISTS: dict[str, tuple[Any, Any, list[str]]] = {
    "runs": (
        m.GetRuns,
        lambda each: f"{each.run}/{each.attempt}",
        [f"run/try-{n:0110}" for n in range(CROWD)],
    ),
    "replicas": (m.GetReplicas, lambda each: each.replica, [f"r{n}" for n in reversed(range(CROWD))]),
    "devices": (m.GetDevices, lambda each: each.device.id, [f"GPU-{n}" for n in range(CROWD)]),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_long_list_comes_in_pages_that_fit(crowd: Bench, kind: str) -> None:
    request, name, expected = LISTS[kind]
    found: list[str] = []
    more = True
    while more:
        page = ask(crowd, request(id=f"q{len(found)}", after=found[-1] if found else ""))
        assert len(encode(page)) < MAX_MESSAGE_SIZE
        found += [name(each) for each in getattr(page, kind)]
        more = page.more
    assert found == expected


@pytest.mark.parametrize("kind", LISTS)
def test_a_page_after_what_is_gone_is_the_first(crowd: Bench, kind: str) -> None:
    request, name, expected = LISTS[kind]
    page = ask(crowd, request(id="q", after="gone"))
    assert page.more
    assert name(getattr(page, kind)[0]) == expected[0]


@pytest.mark.parametrize("lost", [True, False])
def test_one_that_left_says_why(lost: bool) -> None:
    bench = steered()
    if lost:
        bench.unroutable(b"a")
        bench.advance(2.0)
    else:
        bench.receive(b"a", m.Goodbye(reason="trained"))
    (status,) = ask(bench, m.GetReplicas(id="r")).replicas
    expected = ("lost", "the connection was closed") if lost else ("finished", "trained")
    assert (status.state, status.reason) == expected


def test_unknown_names_are_told_with_those_that_are_known() -> None:
    bench = steered()
    assert ask(bench, m.GetKeys(id="k", run="rum")).text == (
        "unknown run 'rum'; did you mean run? known are: run; a trainer that was started just now may take "
        "some seconds to say hello, and then `zloom ps` lists its run"
    )
    nothing = Bench()
    nothing.operator()
    text = ask(nothing, m.GetKeys(id="k", run="run")).text
    assert text.startswith("unknown run 'run'; known are: none yet; a trainer that was started")
    assert "it has: one" in ask(bench, m.GetKeys(id="k", run="run", attempt="two")).text
    assert ask(bench, m.FailDevice(id="f", device="GPU-9")).text.endswith("known are: GPU-1")


def test_values_and_clock_are_told_as_the_replica_told_them() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.receive(b"a", m.Status(seq=1, step=1, values={"learning_rate": 7}, at=1000.0 + bench.now + 3.0))
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="r")))
    assert isinstance(answer, m.Replicas)
    assert answer.replicas[0].values == {"learning_rate": 7}
    assert answer.replicas[0].clock == pytest.approx(3.0)
    bench.receive(b"a", m.Status(seq=2, step=1))
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="s")))
    assert isinstance(answer, m.Replicas)
    assert answer.replicas[0].clock is None, "it has not told"
