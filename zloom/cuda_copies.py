"""Numbers on their way from a CUDA device, queued by the training thread, which never waits for one."""

from collections import deque
from typing import Any

SLAB = 1024
"""Numbers that page-locked memory is had for at once: to lock a page takes the driver some microseconds."""

SPARE = 4096
"""Copies of one kind that are kept to be used again; more were under way at once only after a long wait."""


class Copy:
    """A number on its way: page-locked memory of the host, and the event after which it is there."""

    __slots__ = ("_done", "_home", "_host")

    def __init__(self, host: Any, done: Any, home: deque["Copy"]) -> None:
        self._host = host
        self._done = done
        self._home = home

    def take(self) -> float | None:
        """Return the number, after which this object is used again; None while it is not there.

        Raises:
            RuntimeError: The device failed.
        """
        if not self._done.query():
            return None
        number: float = self._host.item()
        self._home.append(self)
        return number

    def start(self, tensor: Any, stream: Any) -> "Copy":
        """Queue the copy on a stream."""
        self._host.copy_(tensor, non_blocking=True)
        self._done.record(stream)
        return self


class CopyPool:
    """Starts copies. What `start` returns may be taken on another thread.

    They share deques, whose `pop` and `append` each happen as a whole.
    """

    def __init__(self) -> None:
        # An event belongs to the device that it was first recorded on, and memory to the type of its numbers.
        self._spare: dict[tuple[Any, Any], deque[Copy]] = {}

    def start(self, torch: Any, tensor: Any) -> Copy:
        """Queue a copy of a tensor of one element on the current stream of its device.

        Raises:
            TypeError: It is complex.
            RuntimeError: The stream is being captured, into a graph that would copy each time it is replayed.
        """
        if tensor.is_complex():
            raise TypeError("it must be a real number, got a complex tensor")
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph is being captured; report after its replay")
        device, dtype = tensor.device, tensor.dtype
        spare = self._spare.get((device, dtype))
        if spare is None:
            spare = self._spare[device, dtype] = deque(maxlen=SPARE)
        try:
            copy = spare.pop()
        except IndexError:
            with torch.inference_mode(False):  # what is made in it cannot be written to outside of it
                slab = torch.empty(SLAB, dtype=dtype, device="cpu", pin_memory=True)
                copy, *more = (Copy(host, torch.cuda.Event(), spare) for host in slab.unbind())
            spare.extend(more)
        number = tensor.detach()
        return copy.start(number.reshape(()) if number.dim() else number, torch.cuda.current_stream(device))
