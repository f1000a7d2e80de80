import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_nvml import GIB, Card, FakeNVML, xid
from zloom.devices import EVENTS_PER_STATUS, NVML, DeviceProbe, host_device
from zloom.model import Device, DeviceStatus


def is_host(devices: list[Device]) -> bool:
    return devices == [host_device()]


def test_describes_the_visible_gpus_in_cuda_order() -> None:
    nvml = FakeNVML(Card("GPU-a"), Card("GPU-b", name="NVIDIA L4"), Card("GPU-c", memory=None, name=None))
    assert DeviceProbe({"CUDA_VISIBLE_DEVICES": "2,1"}, nvml).devices() == [
        Device(id="GPU-c", name="NVIDIA device", kind="gpu", index=2, memory_total=0),
        Device(id="GPU-b", name="NVIDIA L4", kind="gpu", index=1, memory_total=80 * GIB),
    ]


def test_reads_everything_in_its_unit() -> None:
    assert DeviceProbe({}, FakeNVML(Card("GPU-a"))).status() == [
        DeviceStatus(
            id="GPU-a",
            utilization=0.73,
            memory_used=20 * GIB,
            temperature=61.0,
            power=412.5,
            ecc_errors=2,
        )
    ]


@pytest.mark.parametrize(
    ("unsupported", "field_name"),
    [
        ("utilization", "utilization"),
        ("memory", "memory_used"),
        ("temperature", "temperature"),
        ("power", "power"),
        ("ecc", "ecc_errors"),
        ("events", "xid"),
    ],
)
def test_a_value_that_the_card_cannot_tell_is_none_and_the_others_stay(
    unsupported: str, field_name: str
) -> None:
    whole, lacking = Card("GPU-a", pending=[xid(31)]), Card("GPU-a", pending=[xid(31)])
    setattr(lacking, unsupported, None)
    (full,) = DeviceProbe({}, FakeNVML(whole)).status()
    (status,) = DeviceProbe({}, FakeNVML(lacking)).status()
    for name in status.__struct_fields__:
        expected = None if name == field_name else getattr(full, name)
        assert getattr(status, name) == expected, name
    assert getattr(full, field_name) is not None


def test_a_function_that_the_binding_lacks_is_like_an_unsupported_value() -> None:
    class Newer(FakeNVML):
        @property
        def nvmlDeviceGetTemperature(self) -> Callable[..., int]:  # noqa: N802
            raise AttributeError("removed")

    (status,) = DeviceProbe({}, Newer(Card("GPU-a"))).status()
    assert status.temperature is None
    assert status.power == 412.5


def test_remembers_the_newest_xid_of_each_gpu() -> None:
    first, second = Card("GPU-a"), Card("GPU-b", pending=[xid(13), xid(79)])
    probe = DeviceProbe({}, FakeNVML(first, second))
    assert [status.xid for status in probe.status()] == [None, 79]
    first.pending.append(xid(48))
    assert [status.xid for status in probe.status()] == [48, 79]


def test_waits_no_longer_than_a_moment_and_not_for_ever_for_xids() -> None:
    card = Card("GPU-a", pending=[xid(number) for number in range(1, 2 * EVENTS_PER_STATUS)])
    nvml = FakeNVML(card)
    (status,) = DeviceProbe({}, nvml).status()
    assert status.xid == EVENTS_PER_STATUS
    assert set(nvml.waits) == {1}


def mig_gpu(**kwargs: Any) -> Card:
    slices: list[Card | None] = [
        Card("MIG-1", instance=(1, 0), memory=(10 * GIB, GIB), utilization=None, power=None),
        None,
        Card("MIG-2", instance=(2, 0), memory=(20 * GIB, GIB)),
    ]
    return Card("GPU-a", slices=slices, **kwargs)


@pytest.mark.parametrize("name", ["MIG-2", "MIG-GPU-a/2/0"])
def test_finds_a_slice_by_either_name(name: str) -> None:
    probe = DeviceProbe({"CUDA_VISIBLE_DEVICES": name}, FakeNVML(mig_gpu()))
    assert probe.devices() == [
        Device(id="MIG-2", name="NVIDIA H100", kind="mig", index=0, memory_total=20 * GIB)
    ]


def test_a_slice_has_the_xids_of_its_gpu_but_not_those_of_another_slice() -> None:
    gpu = mig_gpu(pending=[xid(31, instance=2), xid(79), xid(45, instance=1)])
    (first,) = DeviceProbe({"CUDA_VISIBLE_DEVICES": "MIG-1"}, FakeNVML(gpu)).status()
    assert first == DeviceStatus(id="MIG-1", memory_used=GIB, temperature=61.0, ecc_errors=2, xid=45)
    gpu.pending[:] = [xid(79), xid(45, instance=1)]
    (second,) = DeviceProbe({"CUDA_VISIBLE_DEVICES": "MIG-2"}, FakeNVML(gpu)).status()
    assert second.xid == 79


def test_a_gpu_that_nvml_cannot_open_is_left_out() -> None:
    nvml = FakeNVML(None, Card("GPU-b"))
    assert [device.index for device in DeviceProbe({}, nvml).devices()] == [1]


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetUUID"])
def test_a_broken_driver_leaves_the_host(broken: str) -> None:
    probe = DeviceProbe({}, FakeNVML(Card("GPU-a"), broken=broken))
    assert is_host(probe.devices())
    assert probe.status() == []
    probe.close()


def test_a_process_that_sees_no_gpu_computes_on_the_host() -> None:
    assert is_host(DeviceProbe({"CUDA_VISIBLE_DEVICES": ""}, FakeNVML(Card("GPU-a"))).devices())


def test_devices_stay_what_they_were() -> None:
    nvml = FakeNVML(Card("GPU-a"))
    probe = DeviceProbe({}, nvml)
    before = probe.devices()
    nvml.cards = ()
    assert probe.devices() == before
    assert nvml.opened == 1


def test_close_gives_everything_back_once() -> None:
    nvml = FakeNVML(Card("GPU-a"), Card("GPU-b"))
    probe = DeviceProbe({}, nvml)
    probe.close()
    assert probe.status()
    assert (nvml.opened, len(nvml.event_sets)) == (1, 2)
    probe.close()
    probe.close()
    assert (nvml.opened, len(nvml.event_sets)) == (0, 0)
    assert probe.status() == []


def test_the_host_has_one_id_that_shows_neither_machine_id_nor_name(tmp_path: Path) -> None:
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("4c4c4544003358108052b4c04f4d4e31\n")
    device = host_device(machine_id)
    assert device == host_device(machine_id)
    assert device.kind == "host"
    assert len(device.id) == len("host-") + 12
    assert device.id[5:] not in machine_id.read_text()
    machine_id.write_text("another")
    assert host_device(machine_id).id != device.id
    assert host_device(tmp_path / "absent").id == host_device(tmp_path / "absent, too").id


def test_import_is_silent_and_loads_no_binding() -> None:
    code = "import sys, zloom.devices; sys.exit('pynvml' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_real_binding_has_every_name_that_is_used() -> None:
    pynvml = pytest.importorskip("pynvml", reason="needs the extra zloom[gpu]")
    names = [name for name in {**NVML.__annotations__, **vars(NVML)} if name.lower().startswith("nvml")]
    assert len(names) > 20
    assert [name for name in names if not hasattr(pynvml, name)] == []


def test_without_a_binding_the_host_is_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert is_host(DeviceProbe({}).devices())


def test_the_real_probe_always_finds_something() -> None:
    probe = DeviceProbe(os.environ)
    devices, status = probe.devices(), probe.status()
    probe.close()
    assert devices
    assert [one.id for one in status] == [device.id for device in devices if device.kind != "host"]


def has_gpu() -> bool:
    probe = DeviceProbe({})
    try:
        return probe.devices()[0].kind != "host"
    finally:
        probe.close()


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    if not has_gpu():
        pytest.skip("no NVIDIA GPU on this host")
    probe = DeviceProbe({})
    device, status = probe.devices()[0], probe.status()[0]
    probe.close()
    assert device.id.startswith(("GPU-", "MIG-"))
    assert device.memory_total > 2**30
    assert status.memory_used is not None
    assert status.memory_used < device.memory_total
    assert status.temperature is None or 0 < status.temperature < 120
    assert status.power is None or 0 < status.power < 2000
