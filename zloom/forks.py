"""What to do with objects that are one process's alone when it is forked."""

import os
import weakref
from abc import ABC, abstractmethod


class Disownable(ABC):
    """Base of what must not be used, nor even collected, in a forked child.

    Collecting a loop or socket there would take descriptors out of the epoll that the child shares with its
    parent; so the child keeps what it inherited for ever.
    """

    def __init__(self) -> None:
        _living.add(self)

    @abstractmethod
    def _disown(self) -> None:
        """Called in the child, before anything else runs there."""


def process_id() -> int:
    """Return the id of this process, as `os.getpid` does, but without a system call."""
    return _process


_process = os.getpid()
_living: weakref.WeakSet[Disownable] = weakref.WeakSet()
_inherited: list[Disownable] = []


def _disown_all() -> None:
    global _process
    _process = os.getpid()
    _inherited.extend(_living)
    for each in _inherited:
        each._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
