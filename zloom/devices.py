"""What a process computes on: its NVIDIA devices by NVML, or else the host.

Nothing is imported, opened or printed before the first call of `DeviceProbe.devices`. **Every call
may block**, for seconds when a driver is in trouble, so a probe lives on a thread of its own and never
on the training thread. `pynvml` calls NVML through ctypes, which gives the GIL up meanwhile: a call that
hangs holds up nobody else.

The binding comes with the package `nvidia-ml-py`; the PyPI package named `pynvml` is deprecated.
"""

# ruff: noqa: N802, N815  (the names of NVML are given)

import hashlib
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from zloom.model import Device, DeviceStatus
from zloom.visibility import Unit, visible_units

T = TypeVar("T")

# Linux: made once when the system is installed, the same after each boot. Elsewhere the file is absent.
MACHINE_ID = Path("/etc/machine-id")

# How long one look at a GPU's event set may take, in milliseconds. Not 0: some of NVIDIA's documentation
# reads 0 as "wait for ever", and a millisecond costs nothing on a thread of its own.
EVENT_WAIT = 1

# A broken GPU can raise events faster than they are read; the rest waits for the next status.
EVENTS_PER_STATUS = 64

# What NVML writes for "no particular instance of this GPU": an unsigned int with all bits set.
ANY_INSTANCE = 0xFFFFFFFF


class NVML(Protocol):
    """The part of `pynvml` that zloom calls; the module itself satisfies it."""

    @property
    def NVMLError(self) -> type[Exception]: ...

    NVML_TEMPERATURE_GPU: int
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED: int
    NVML_VOLATILE_ECC: int
    nvmlEventTypeXidCriticalError: int

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...
    def nvmlDeviceGetGpuInstanceId(self, handle: Any) -> int: ...
    def nvmlDeviceGetComputeInstanceId(self, handle: Any) -> int: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error_type: int, counter: int) -> int: ...
    def nvmlDeviceGetSupportedEventTypes(self, handle: Any) -> int: ...
    def nvmlDeviceRegisterEvents(self, handle: Any, events: int, event_set: Any) -> None: ...
    def nvmlEventSetCreate(self) -> Any: ...
    def nvmlEventSetWait(self, event_set: Any, timeout_ms: int) -> Any: ...
    def nvmlEventSetFree(self, event_set: Any) -> None: ...


def host_device(machine_id: Path = MACHINE_ID) -> Device:
    """Return the device that stands for this host, where no NVIDIA device can be seen.

    The id is a digest of the system's machine id and the hostname. Both stay over reboots; the hostname
    tells containers and cloned images apart that share a machine id. A machine id is not to be shown to
    others, hence the digest: 48 bits of it cannot be turned back.
    """
    try:
        machine = machine_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    digest = hashlib.sha256(f"zloom device\0{machine}\0{socket.gethostname()}".encode()).hexdigest()
    return Device(id=f"host-{digest[:12]}", name=f"CPU ({platform.machine()})", kind="host")


class DeviceProbe:
    """Reads the devices of this process and how they are. One probe belongs to one thread.

    What a card or driver cannot tell is None; no NVML error leaves this class.

    Args:
        environ: The process's environment; only CUDA_VISIBLE_DEVICES is read.
        library: The NVML binding; `pynvml` is imported at first use when it is None.
    """

    def __init__(self, environ: Mapping[str, str], library: NVML | None = None) -> None:
        self._visible = environ.get("CUDA_VISIBLE_DEVICES")
        self._library = library
        self._open = False
        self._units: list[Unit] = []
        self._devices: list[Device] | None = None
        self._event_sets: dict[str, Any] = {}
        self._xids: dict[str, int] = {}

    def devices(self) -> list[Device]:
        """Return the devices that CUDA shows to this process, or the host when it shows none.

        The position in the list is CUDA's ordinal (`cuda:0`, …); `index` is the number of the GPU in
        `nvidia-smi`. The answer is found once and stays: a replica keeps its devices for life.
        """
        if self._devices is None:
            self._units = visible_units(self._visible, self._all_units())
            self._devices = [self._describe(unit) for unit in self._units] or [host_device()]
            if self._units:
                self._watch_xids()
        return list(self._devices)

    def status(self) -> list[DeviceStatus]:
        """Return how each NVIDIA device is, in the order of `devices`.

        The list is empty where the host is the device, of which nothing is measured, and after `close`.
        """
        self.devices()
        return [self._status(unit) for unit in self._units] if self._open else []

    def close(self) -> None:
        """Let go of NVML. May be called again, and before anything else was."""
        if self._open:
            nvml = self._nvml
            for event_set in self._event_sets.values():
                self._read(partial(nvml.nvmlEventSetFree, event_set))
            self._event_sets.clear()
            self._read(nvml.nvmlShutdown)
            self._open = False

    @property
    def _nvml(self) -> NVML:
        assert self._library is not None, "NVML is called only after it was found"
        return self._library

    def _read(self, call: Callable[[], T]) -> T | None:
        # AttributeError: a later binding may have dropped a function that NVML deprecates.
        try:
            return call()
        except (self._nvml.NVMLError, AttributeError):
            return None

    def _initialize(self) -> bool:
        self._library = self._library or _import_pynvml()
        if self._library is None:
            return False
        try:
            self._library.nvmlInit()
        except self._library.NVMLError:
            return False
        return True

    def _all_units(self) -> list[Unit]:
        self._open = self._initialize()
        count = self._read(self._nvml.nvmlDeviceGetCount) if self._open else 0
        return [unit for index in range(count or 0) for unit in self._units_of(index)]

    def _units_of(self, index: int) -> list[Unit]:
        nvml = self._nvml

        def read() -> tuple[Any, str]:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            return handle, nvml.nvmlDeviceGetUUID(handle)

        if (gpu := self._read(read)) is None:
            return []
        handle, uuid = gpu
        mode = self._read(lambda: nvml.nvmlDeviceGetMigMode(handle))
        if mode is None or not mode[0]:
            return [Unit(uuid, uuid, index, None, handle, handle)]
        count = self._read(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
        slices = (self._slice(uuid, index, handle, position) for position in range(count))
        return [unit for unit in slices if unit is not None]

    def _slice(self, gpu: str, index: int, gpu_handle: Any, position: int) -> Unit | None:
        nvml = self._nvml

        def read() -> Unit:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu_handle, position)
            instance = nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle)
            return Unit(nvml.nvmlDeviceGetUUID(handle), gpu, index, instance, handle, gpu_handle)

        return self._read(read)

    def _describe(self, unit: Unit) -> Device:
        nvml = self._nvml
        memory = self._read(lambda: nvml.nvmlDeviceGetMemoryInfo(unit.handle))
        return Device(
            id=unit.uuid,
            name=self._read(lambda: nvml.nvmlDeviceGetName(unit.handle)) or "NVIDIA device",
            kind="gpu" if unit.instance is None else "mig",
            index=unit.index,
            memory_total=0 if memory is None else memory.total,
        )

    def _status(self, unit: Unit) -> DeviceStatus:
        nvml, handle = self._nvml, unit.handle
        rates = self._read(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._read(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        celsius = self._read(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        milliwatts = self._read(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return DeviceStatus(
            id=unit.uuid,
            utilization=None if rates is None else rates.gpu / 100,
            memory_used=None if memory is None else memory.used,
            temperature=None if celsius is None else float(celsius),
            power=None if milliwatts is None else milliwatts / 1000,
            ecc_errors=self._uncorrected_errors(handle),
            xid=self._newest_xid(unit),
        )

    def _uncorrected_errors(self, handle: Any) -> int | None:
        nvml = self._nvml
        return self._read(
            lambda: nvml.nvmlDeviceGetTotalEccErrors(
                handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            )
        )

    def _watch_xids(self) -> None:
        # One event set for each GPU: an event's handle cannot be traced to a GPU that fell off the bus.
        nvml, wanted = self._nvml, self._nvml.nvmlEventTypeXidCriticalError
        for unit in filter(self._tells_xids, self._units):
            event_set = self._read(nvml.nvmlEventSetCreate)
            if event_set is not None:
                self._event_sets[unit.uuid] = event_set
                # A slice's handle is no source of events; its GPU's is.
                self._read(partial(nvml.nvmlDeviceRegisterEvents, unit.gpu_handle, wanted, event_set))

    def _tells_xids(self, unit: Unit) -> bool:
        supported = self._read(partial(self._nvml.nvmlDeviceGetSupportedEventTypes, unit.gpu_handle))
        return bool((supported or 0) & self._nvml.nvmlEventTypeXidCriticalError)

    def _newest_xid(self, unit: Unit) -> int | None:
        event_set = self._event_sets.get(unit.uuid)
        for _ in range(EVENTS_PER_STATUS if event_set is not None else 0):
            event = self._read(lambda: self._nvml.nvmlEventSetWait(event_set, EVENT_WAIT))
            if event is None:
                break
            if unit.instance is None or event.gpuInstanceId in (unit.instance[0], ANY_INSTANCE):
                self._xids[unit.uuid] = event.eventData
        return self._xids.get(unit.uuid)


def _import_pynvml() -> NVML | None:
    try:
        import pynvml
    except ImportError:
        return None
    return cast(NVML, pynvml)
