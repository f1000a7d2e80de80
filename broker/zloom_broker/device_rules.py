"""What a device's readings mean: which are trouble, and which say that it failed. Pure, and without state."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zloom.model import Device, DeviceStatus

Kind = Literal["xid", "ecc", "hot", "full"]

FAILED_XIDS = {
    48: "double bit error in its memory",
    62: "its micro-controller halted",
    64: "a row of its memory could not be remapped",
    74: "NVLink error",
    79: "it has fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    110: "security fault",
    119: "its system processor does not answer",
    120: "its system processor failed",
    140: "uncorrected error in its memory",
}
"""XIDs that NVIDIA's catalogue blames on the hardware or its firmware. Others, such as 13, 31 and 43, are
mostly errors of the program that runs there: they are told, and the device has not failed."""

HOT = 90.0
"""Degrees Celsius from which on a device is hot: data-center GPUs slow down at about that."""

COOL = 85.0
"""Degrees Celsius below which it is not any more: apart from `HOT`, or it would be told again and again."""

FULL = 0.97
"""Share of its memory from which on a device is nearly full."""

ROOMY = 0.93
"""Share of its memory below which it is not any more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong with a device.

    Attributes:
        kind: What.
        text: In words.
        failed: The device failed, so that what is computed there cannot be trusted, or not go on.
    """

    kind: Kind
    text: str
    failed: bool = False


def happened(before: DeviceStatus, now: DeviceStatus) -> Iterator[Trouble]:
    """Yield what happened between two readings by one process."""
    if now.xid is not None and now.xid != before.xid:
        meaning = FAILED_XIDS.get(now.xid)
        yield Trouble("xid", f"XID {now.xid}" + (f": {meaning}" if meaning else ""), meaning is not None)
    if now.ecc_errors is not None and before.ecc_errors is not None and now.ecc_errors > before.ecc_errors:
        more = now.ecc_errors - before.ecc_errors
        text = f"{more} uncorrected memory error{'s' if more > 1 else ''} (ECC), {now.ecc_errors} in all"
        yield Trouble("ecc", text, True)


def lasting(device: Device, status: DeviceStatus, known: frozenset[str]) -> Iterator[Trouble]:
    """Yield what is the matter as long as it lasts.

    Args:
        device: Which.
        status: Its newest reading.
        known: What was the matter before: that ends only when there is some distance from it.
    """
    celsius = status.temperature
    if celsius is not None and celsius >= (COOL if "hot" in known else HOT):
        yield Trouble("hot", f"{celsius:.0f} °C")
    if status.memory_used is not None and device.memory_total:
        share = status.memory_used / device.memory_total
        if share >= (ROOMY if "full" in known else FULL):
            yield Trouble("full", f"{share:.0%} of its memory is in use")
