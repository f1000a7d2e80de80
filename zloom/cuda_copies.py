"""Numbers on their way from a CUDA device, queued by the training thread, which never waits for one."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

SLAB = 1024
"""Numbers that page-locked memory is had for at once: to lock a page takes the driver some microseconds."""

SPARE = 8 * SLAB
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
        self._spare: dict[tuple[int, Any], deque[Copy]] = {}
        self._current_stream: Callable[[int], Any] = _unknown

    def start(self, torch: Any, tensor: Any) -> Copy:
        """Queue a copy of a tensor of one element on the current stream of its device.

        Raises:
            TypeError: It is complex.
            RuntimeError: The stream is being captured, into a graph that would copy each time it is replayed.
        """
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph is being captured; report after its replay")
        index = tensor.get_device()
        try:
            copy = self._spare[index, tensor.dtype].pop()
        except LookupError:  # the first of its kind, or none to spare
            copy = self._more(torch, tensor)
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.dim():
            tensor = tensor.reshape(())
        return copy.start(tensor, self._current_stream(index))

    def _more(self, torch: Any, tensor: Any) -> Copy:
        if tensor.is_complex():
            raise TypeError("it must be a real number, got a complex tensor")
        spare = self._spare.setdefault((tensor.get_device(), tensor.dtype), deque(maxlen=SPARE))
        self._current_stream, event = streams_and_events(torch)
        with torch.inference_mode(False):  # what is made in it cannot be written to outside of it
            slab = torch.empty(SLAB, dtype=tensor.dtype, device="cpu", pin_memory=True)
            copy, *others = (Copy(host, event(), spare) for host in slab.unbind())
        spare.extend(others)
        return copy


def streams_and_events(torch: Any) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """Return what tells the current stream of a device, and what makes an event for it."""
    if hasattr(torch, "accelerator"):  # since torch 2.6: the stream in a sixth of the time
        return torch.accelerator.current_stream, partial(torch.Event, device="cuda", enable_timing=False)
    return torch.cuda.current_stream, torch.cuda.Event


def _unknown(_index: int) -> Any:
    raise AssertionError("no copy was made yet")
