"""Which readings of a device are trouble."""

import pytest

from zloom.model import Device, DeviceStatus
from zloom_broker.device_rules import FAILED_XIDS, Trouble, happened, lasting

GPU = Device("GPU-1", "A GPU", "gpu", 0, memory_total=100)
NOTHING = DeviceStatus("GPU-1")


def reading(**fields: object) -> DeviceStatus:
    return DeviceStatus("GPU-1", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (NOTHING, NOTHING, []),
        (NOTHING, reading(xid=31), [Trouble("xid", "XID 31")]),
        (NOTHING, reading(xid=79), [Trouble("xid", f"XID 79: {FAILED_XIDS[79]}", True)]),
        (reading(xid=79), reading(xid=79), []),
        (reading(xid=13), reading(xid=48), [Trouble("xid", f"XID 48: {FAILED_XIDS[48]}", True)]),
        (reading(ecc_errors=2), reading(ecc_errors=2), []),
        (
            reading(ecc_errors=2),
            reading(ecc_errors=3),
            [Trouble("ecc", "1 uncorrected memory error (ECC), 3 in all", True)],
        ),
        (reading(ecc_errors=2), reading(ecc_errors=0), []),
        (reading(ecc_errors=2), NOTHING, []),
        (NOTHING, reading(ecc_errors=7), []),
    ],
)
def test_what_happened_between_two_readings(
    before: DeviceStatus, now: DeviceStatus, found: list[Trouble]
) -> None:
    assert list(happened(before, now)) == found


@pytest.mark.parametrize(
    ("now", "known", "kinds"),
    [
        (reading(temperature=89.9), (), []),
        (reading(temperature=90.0), (), ["hot"]),
        (reading(temperature=85.0), ("hot",), ["hot"]),
        (reading(temperature=84.9), ("hot",), []),
        (reading(memory_used=96), (), []),
        (reading(memory_used=97), (), ["full"]),
        (reading(memory_used=93), ("full",), ["full"]),
        (reading(memory_used=92), ("full",), []),
        (reading(memory_used=99, temperature=99.0), (), ["hot", "full"]),
        (NOTHING, ("hot", "full"), []),
    ],
)
def test_what_lasts_ends_at_some_distance(
    now: DeviceStatus, known: tuple[str, ...], kinds: list[str]
) -> None:
    assert [trouble.kind for trouble in lasting(GPU, now, frozenset(known))] == kinds


def test_without_its_size_no_memory_is_full() -> None:
    assert list(lasting(Device("GPU-1", "A GPU", "gpu"), reading(memory_used=99), frozenset())) == []
