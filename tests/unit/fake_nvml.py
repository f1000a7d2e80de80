"""NVML at the edge of its Python binding: what a machine without a GPU cannot have."""

# ruff: noqa: N802, N815  (the names of NVML are given)

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVar

from zloom.devices import ANY_INSTANCE

XID = 8
GIB = 2**30


class FakeError(Exception):
    """Stands for `pynvml.NVMLError`, whose subclasses need the library to be made."""


@dataclass
class Card:
    """A handle of the fake NVML: a GPU, or a slice of one. None: not supported by the card."""

    uuid: str
    name: str | None = "NVIDIA H100"
    memory: tuple[int, int] | None = (80 * GIB, 20 * GIB)
    utilization: int | None = 73
    temperature: int | None = 61
    power: int | None = 412_500
    ecc: int | None = 2
    events: int | None = XID
    pending: list[SimpleNamespace] = field(default_factory=list)
    instance: tuple[int, int] | None = None
    slices: list["Card | None"] | None = None


T = TypeVar("T")


def supported(value: T | None) -> T:
    if value is None:
        raise FakeError("Not Supported")
    return value


class FakeNVML:
    """NVML at the edge of its Python binding: the names of `pynvml`, over a list of cards."""

    NVMLError = FakeError
    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = XID

    def __init__(self, *cards: Card | None, broken: str = "") -> None:
        self.cards = cards
        self.opened = 0
        self.event_sets: list[list[Card]] = []
        self.waits: list[int] = []
        if broken:
            setattr(self, broken, self.refuse)

    def refuse(self, *_: object) -> None:
        raise FakeError("Driver Not Loaded")

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return supported(self.cards[index])

    def nvmlDeviceGetUUID(self, handle: Card) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Card) -> str:
        return supported(handle.name)

    def nvmlDeviceGetMigMode(self, handle: Card) -> list[int]:
        return [int(len(supported(handle.slices)) > 0), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Card) -> int:
        return len(handle.slices or [])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Card, index: int) -> Card:
        return supported((handle.slices or [])[index])

    def nvmlDeviceGetGpuInstanceId(self, handle: Card) -> int:
        return supported(handle.instance)[0]

    def nvmlDeviceGetComputeInstanceId(self, handle: Card) -> int:
        return supported(handle.instance)[1]

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> SimpleNamespace:
        total, used = supported(handle.memory)
        return SimpleNamespace(total=total, used=used)

    def nvmlDeviceGetUtilizationRates(self, handle: Card) -> SimpleNamespace:
        return SimpleNamespace(gpu=supported(handle.utilization))

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return supported(handle.temperature)

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:
        return supported(handle.power)

    def nvmlDeviceGetTotalEccErrors(self, handle: Card, error_type: int, counter: int) -> int:
        assert (error_type, counter) == (1, 0), "uncorrected, since the driver was loaded"
        return supported(handle.ecc)

    def nvmlDeviceGetSupportedEventTypes(self, handle: Card) -> int:
        return supported(handle.events)

    def nvmlDeviceRegisterEvents(self, handle: Card, events: int, event_set: list[Card]) -> None:
        assert events == XID
        assert handle.instance is None, "NVML has no events of slices"
        event_set.append(handle)

    def nvmlEventSetCreate(self) -> list[Card]:
        self.event_sets.append([])
        return self.event_sets[-1]

    def nvmlEventSetWait(self, event_set: list[Card], timeout_ms: int) -> SimpleNamespace:
        self.waits.append(timeout_ms)
        for card in event_set:
            if card.pending:
                return card.pending.pop(0)
        raise FakeError("Timeout")

    def nvmlEventSetFree(self, event_set: list[Card]) -> None:
        self.event_sets.remove(event_set)


def xid(number: int, instance: int = ANY_INSTANCE) -> SimpleNamespace:
    return SimpleNamespace(eventData=number, gpuInstanceId=instance, computeInstanceId=ANY_INSTANCE)
