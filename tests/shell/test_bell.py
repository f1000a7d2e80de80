"""What wakes a thread that waits, in the presence of signals."""

import itertools
import sys
import threading
from functools import partial

import pytest

from tests.interrupts import interrupted
from tests.support import DEADLINE
from zloom.bell import Bell


def test_it_rings_once_for_who_waits_next() -> None:
    bell = Bell()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.01)
    bell.ring()
    bell.hush()
    bell.hush()
    assert not bell.wait(-1.0)


def test_it_wakes_a_thread_that_waits() -> None:
    bell, woken = Bell(), list[bool]()
    thread = threading.Thread(target=lambda: woken.append(bell.wait(DEADLINE)))
    thread.start()
    bell.ring()
    thread.join(DEADLINE)
    assert woken == [True]


def use(bell: Bell) -> None:
    """Do with it what a safe point and another thread do."""
    bell.hush()
    bell.wait(0.0)
    bell.ring()
    bell.wait(0.0)


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_g12_a_signal_wherever_it_comes_leaves_a_bell_that_rings_and_is_heard() -> None:
    for place in itertools.count(1):
        bell = Bell()
        if not interrupted(place, partial(use, bell)):
            break
        ringing = threading.Thread(target=bell.ring, daemon=True)
        ringing.start()
        ringing.join(DEADLINE)
        assert not ringing.is_alive(), place
        assert bell.wait(0.0), place
    assert place > 8
