"""A stand-in for torch with a GPU whose copies are done when the test says so."""

import contextlib
from types import SimpleNamespace
from typing import Any


class Event:
    """Done once `Device.finish` has run, broken once `Device.fail` has."""

    def __init__(self, device: "Device") -> None:
        self._device = device

    def record(self, stream: object) -> None:
        assert stream == "current"
        self._device.queued.append(self)
        self.done = False

    def query(self) -> bool:
        if self._device.failed:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return self.done


class Tensor:
    is_cuda = True
    dtype = "float32"

    requires_grad = False

    def __init__(self, value: float = 0.0, size: int = 1) -> None:
        self.value = value
        self.shape = (size,)

    def get_device(self) -> int:
        return 0

    def numel(self) -> int:
        return self.shape[0]

    def is_complex(self) -> bool:
        return isinstance(self.value, complex)

    def detach(self) -> "Tensor":
        return self

    def dim(self) -> int:
        return 0

    def reshape(self, shape: tuple[int, ...]) -> "Tensor":
        return self

    def copy_(self, source: "Tensor", non_blocking: bool) -> None:
        assert non_blocking
        self.value = source.value

    def item(self) -> float:
        assert not self.is_cuda, "reading it would wait for the GPU"
        return self.value


class Host(Tensor):
    is_cuda = False


class Device:
    """What stands in `sys.modules["torch"]`: one that has `accelerator`, as since 2.6, or none."""

    def __init__(self, *, accelerator: bool = True) -> None:
        self.queued: list[Event] = []
        self.pinned = 0
        self.failed = False
        self.capturing = False
        self.Tensor = Tensor
        self.inference_mode = contextlib.nullcontext
        streams = SimpleNamespace(current_stream=lambda index: "current")
        self.cuda = SimpleNamespace(is_current_stream_capturing=lambda: self.capturing)
        if accelerator:
            self.accelerator, self.Event = streams, self._event
        else:
            self.cuda.current_stream = streams.current_stream
            self.cuda.Event = lambda: Event(self)

    def _event(self, *, device: str, enable_timing: bool) -> Event:
        assert (device, enable_timing) == ("cuda", False)
        return Event(self)

    def empty(self, count: int, *, dtype: Any, device: str, pin_memory: bool) -> SimpleNamespace:
        assert (dtype, device, pin_memory) == ("float32", "cpu", True)
        self.pinned += count
        return SimpleNamespace(unbind=lambda: [Host() for _ in range(count)])

    def finish(self, copies: int) -> None:
        """Let the oldest copies be done."""
        for event in self.queued[:copies]:
            event.done = True
        del self.queued[:copies]
