"""What the broker makes of trouble that devices are in."""

from typing import Any

import pytest

from tests.unit.broker_support import GPU, PAUSE, Bench, events, published, replica, sent
from zloom import messages as m
from zloom.model import Command, DeviceStatus, Event, Schema
from zloom_broker.effects import Effect
from zloom_broker.permissions import OWNER, Access

CHECKPOINT, STOP = (Command(name, Schema(["object"], properties={})) for name in ("checkpoint", "stop"))


def job(**settings: Any) -> Bench:
    bench = Bench(**settings)
    bench.active(commands=[PAUSE, CHECKPOINT, STOP])
    bench.operator()
    return bench


def report(bench: Bench, seq: int = 1, name: str = "a", device: str = GPU.id, **reading: Any) -> list[Effect]:
    return bench.receive(
        name.encode(), m.Status(seq=seq, step=seq, devices=[DeviceStatus(device, **reading)])
    )


def told(effects: list[Effect]) -> list[Event]:
    happened = published(effects, b"watch/run/")
    return [each.event for each in happened if isinstance(each, m.Happened)]


def commands(bench: Bench) -> list[tuple[str, str, str]]:
    ledgers = bench.core.state.attempts["run", "one"].ledgers
    return [(each.revision.command, each.revision.by, each.revision.note) for each in ledgers]


def test_trouble_is_told_once_and_its_end_too() -> None:
    bench = job()
    (event,) = told(report(bench, 1, temperature=95.0))
    assert (event.kind, event.device, event.replicas) == ("device_trouble", GPU.id, ["a"])
    assert event.text == "GPU-1 on host: 95 °C"
    assert told(report(bench, 2, temperature=96.0)) == []
    (event,) = told(report(bench, 3, temperature=60.0))
    assert (event.kind, event.text) == ("device_recovered", "GPU-1 on host: it has cooled down")
    assert events(report(bench, 4, xid=31)) == ["device_trouble"]
    assert commands(bench) == []


def test_a_failure_is_written_down_and_its_replicas_are_told() -> None:
    bench = job()
    effects = report(bench, 1, xid=79)
    reason = "XID 79: it has fallen off the bus"
    assert [each for each in sent(effects, b"a") if isinstance(each, m.Failure)] == [
        m.Failure(id=1, kind="device", device=GPU.id, reason=reason)
    ]
    assert events(effects) == ["device_failed"]
    assert bench.core.state.failed_devices[GPU.id].reason == reason
    assert bench.core.state.failed_devices[GPU.id].by == "zloom"
    assert commands(bench) == [], "to notify is all"
    assert events(report(bench, 2, xid=79)) == []
    assert events(report(bench, 3, xid=79, ecc_errors=4)) == [], "what it had before is not its own"
    assert events(report(bench, 4, xid=79, ecc_errors=5)) == ["device_failed"]


def test_a_failure_that_was_reported_stays_so_and_a_new_one_on_the_device_is_told() -> None:
    """Nobody but who repairs a device knows that it works again."""
    bench = job()
    bench.receive(b"op", m.FailDevice(id="f1", device=GPU.id, reason="it burns"))
    bench.receive(b"a", m.Goodbye())
    assert events(bench.join("b", attempt="two")) == ["attempt_started", "joined"]
    (devices,) = sent(bench.receive(b"op", m.GetDevices(id="q")))
    assert isinstance(devices, m.Devices)
    assert [(each.replicas, each.failed) for each in devices.devices] == [(["b"], "it burns")]
    assert events(report(bench, 1, "b", xid=79)) == ["device_failed"]


@pytest.mark.parametrize("reaction", ["checkpoint", "stop"])
def test_the_run_does_what_was_decided_once(reaction: str) -> None:
    bench = job(on_device_failure=reaction)
    report(bench, 1, xid=79)
    note = "GPU-1 failed: XID 79: it has fallen off the bus"
    assert commands(bench) == [(reaction, "zloom", note)]
    report(bench, 2, xid=79, ecc_errors=0)
    report(bench, 3, xid=95, ecc_errors=1)
    assert len(commands(bench)) == 1, "devices fail together"
    bench.now += 61.0
    report(bench, 4, xid=48, ecc_errors=1)
    assert len(commands(bench)) == 2


def test_what_an_operator_reports_is_a_failure_too() -> None:
    bench = job(on_device_failure="stop")
    bench.receive(b"op", m.FailDevice(id="f", device=GPU.id, reason="it burns"))
    assert commands(bench) == [("stop", "zloom", "GPU-1 failed: it burns")]


def test_a_restarted_broker_does_not_react_again() -> None:
    first = job(on_device_failure="stop")
    report(first, 1, xid=79)
    second = Bench(first.journal, epoch="next", on_device_failure="stop")
    second.active(commands=[PAUSE, CHECKPOINT, STOP])
    assert events(report(second, 2, xid=79)) == []
    assert len(commands(second)) == 1


def test_a_run_that_cannot_is_said() -> None:
    bench = Bench(on_device_failure="stop")
    bench.active()
    _, event = told(report(bench, 1, xid=79))
    assert event.kind == "reaction_failed"
    assert event.text.startswith("stop because of GPU-1 is refused: ")


def test_a_device_that_it_did_not_name_is_nobodys() -> None:
    assert told(report(job(), 1, device="GPU-2", xid=79)) == []


def test_what_a_weavelet_reads_of_a_device_does_nothing_to_runs_that_are_not_its_keys() -> None:
    bench = job(on_device_failure="stop")
    access = Access("node-b", "weavelet", ("other",))
    for name, of in (("b", access), ("c", OWNER)):
        there = replica(name, run="other", rank="bc".index(name), world_size=2, commands=[STOP])
        bench.receive(
            name.encode(), m.Hello(protocols=[1], role="weavelet", nonce=f"n-{name}", replica=there), of
        )
    reading = m.Status(seq=1, step=1, devices=[DeviceStatus(GPU.id, xid=79)])
    effects = bench.receive(b"b", reading, access)
    told_of_it = {
        peer for peer in (b"a", b"b", b"c") if any(isinstance(e, m.Failure) for e in sent(effects, peer))
    }
    assert (told_of_it, commands(bench)) == ({b"b", b"c"}, [])
    assert bench.core.state.attempts["other", "one"].ledgers[1].revision.command == "stop"


def test_of_a_status_one_reading_of_each_device_counts() -> None:
    bench = job()
    report(bench, 1, ecc_errors=0)
    before = len(bench.journal)
    readings = [DeviceStatus(GPU.id, ecc_errors=errors) for errors in range(1, 1001)]
    effects = bench.receive(b"a", m.Status(seq=2, step=2, devices=readings))
    assert events(effects) == ["device_failed"]
    assert len(bench.journal) == before + 1
