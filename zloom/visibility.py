"""Which devices CUDA shows to a process: the rules of CUDA_VISIBLE_DEVICES, without asking CUDA.

Asking CUDA itself would create a context on each GPU and cost hundreds of megabytes there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unit:
    """What CUDA can count as a device: a GPU, or one MIG slice of a GPU in MIG mode.

    `gpu` and `index` are the UUID and the NVML number of the GPU that it is or is cut from, `instance`
    the slice's GPU instance and compute instance. The handles are NVML's.
    """

    uuid: str
    gpu: str
    index: int
    instance: tuple[int, int] | None = None
    handle: Any = None
    gpu_handle: Any = None

    @property
    def old_name(self) -> str:
        """The slice as drivers before R470 called it; CUDA still understands this form."""
        return "" if self.instance is None else f"MIG-{self.gpu}/{self.instance[0]}/{self.instance[1]}"


def visible_units(value: str | None, units: Sequence[Unit]) -> list[Unit]:
    """Pick what CUDA shows to a process whose CUDA_VISIBLE_DEVICES is `value`, in CUDA's order.

    CUDA's rules: unset shows all; entries are indices, prefixes of one GPU's UUID, or names of MIG slices in
    the form of now or of before R470; the list ends at its first invalid entry, so an empty list and -1
    show nothing. An entry of another form than the first one is invalid, and a repeated one empties the
    list. A GPU in MIG mode stands for its first slice, and CUDA shows one slice at most, and none beside
    a whole GPU.

    Indices are read in NVML's order, by PCI bus. On a host with GPUs of several models CUDA's own order
    can differ, unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    chosen = _first_of_each_gpu(units) if value is None else _listed(value, units)
    whole = [unit for unit in chosen if unit.instance is None]
    return whole or chosen[:1]


def _first_of_each_gpu(units: Sequence[Unit]) -> list[Unit]:
    first: dict[str, Unit] = {}
    for unit in units:
        first.setdefault(unit.gpu, unit)
    return list(first.values())


def _listed(value: str, units: Sequence[Unit]) -> list[Unit]:
    entries = [entry.strip() for entry in value.split(",")]
    chosen: list[Unit] = []
    for entry in entries:
        unit = _find(entry, units) if _form(entry) == _form(entries[0]) else None
        if unit is None:
            break
        if unit in chosen:
            return []
        chosen.append(unit)
    return chosen


def _form(entry: str) -> str:
    return entry[:4] if entry.startswith(("GPU-", "MIG-")) else "index"


def _find(entry: str, units: Sequence[Unit]) -> Unit | None:
    if entry.startswith("MIG-"):
        found = [unit for unit in units if unit.instance and entry in (unit.uuid, unit.old_name)]
    elif entry.startswith("GPU-"):
        found = [unit for unit in _first_of_each_gpu(units) if unit.gpu.startswith(entry)]
    else:
        # CUDA reads numbers as C's strtoul does: "1gpu" is 1.
        digits = re.match(r"\+?(\d+)", entry)
        found = [unit for unit in _first_of_each_gpu(units) if digits and unit.index == int(digits[1])]
    return found[0] if len(found) == 1 else None
