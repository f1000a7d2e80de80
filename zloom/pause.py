"""The commands `pause` and `resume`: whether the training is held at a safe point, and until when. Pure."""

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from zloom.handlers import Registry
from zloom.model import MAX_LEFT
from zloom.words import span

PAUSE_LIMIT = 1800.0
"""Seconds after which a pause ends by itself: somebody forgot it, and the machines cost money."""

Limit = Annotated[float, Meta(ge=0)] | None
Steps = Annotated[int, Meta(ge=1)] | None


class Pause:
    """Whether the training pauses. `end` may be called from any thread, the rest belongs to the training's.

    All that decides about it but the limit is a function of steps: ranks that carry `pause` and `resume` out
    at one step pause at one step.

    Args:
        registry: Where the two commands are declared.
    """

    def __init__(self, registry: Registry) -> None:
        self.active = False
        self.until: float | None = None
        """When the pause ends by itself, on the clock of `reach`'s `now`; None without a limit."""
        self.ready: Callable[[], bool] = lambda: True
        """Asked whether the training may pause at this safe point."""
        self._limit: float | None = PAUSE_LIMIT
        self._again: int | None = None
        """The step from which on it pauses again."""
        self._step = 0
        self._now = 0.0
        self._registry = registry
        registry.add_command("pause", self._pause, ready=self._may_pause)
        registry.add_command("resume", self._resume)

    @property
    def coming(self) -> bool:
        """Whether the training pauses again after some steps."""
        return self._again is not None

    def left(self, now: float) -> float | None:
        """Return the seconds until the pause ends by itself, where it does. Any thread may ask."""
        until = self.until if self.active else None
        left = None if until is None else max(0.0, until - now)
        return None if left is None or left > MAX_LEFT else left

    def begin_with(self, limit: float) -> None:
        """Have the training pause at its first step, for so many seconds at most. Call it before that."""
        self._limit, self._again = limit, 1

    def reach(self, step: int, now: float) -> bool:
        """A safe point is reached: end a pause at its limit, or pause again after a bounded resume.

        Args:
            step: The step that is about to begin, or under way.
            now: Seconds on a monotonic clock.

        Returns:
            Whether it pauses again, although a signal may have ended that by now.
        """
        self._step, self._now = step, now
        if self.until is not None and now >= self.until:
            self.end()
        pauses = self._again is not None and step >= self._again and self._may_pause_again()
        if pauses:
            self._pause(self._limit)
        return pauses

    def end(self) -> None:
        """End a pause, and do not pause again after some steps."""
        self._again = None
        self.active, self.until = False, None

    def _may_pause(self) -> bool:
        return self.ready()

    def _may_pause_again(self) -> bool:
        try:
            return bool(self.ready())
        except Exception as error:  # noqa: BLE001 - a user's predicate may raise anything
            # Nobody waits for an answer here, and all ranks are to pause at this step.
            self._registry.tell_of("`pause_ready`", error)
            return True

    def _pause(self, limit: Limit = PAUSE_LIMIT) -> str:
        """Hold the training here; it goes on at `resume`, or by itself after `limit` seconds."""
        said = f"was paused already; now {_for_how_long(limit)}" if self.active else ""
        self._limit, self._again = limit, None
        self.until = None if limit is None else self._now + limit
        self.active = True  # last, so that who sees it, on another thread, finds its end
        return said

    def _resume(self, steps: Steps = None) -> str:
        """End a pause; with `steps` train so many, and pause again with the limit that the pause had."""
        said = [] if self.active else ["was not paused"]
        if self._again is not None:
            said.append(f"no longer pauses from step {self._again} on")
        self.end()
        if steps is not None:
            self._again = self._step + steps
            again = "" if said else "again "
            said.append(f"pauses {again}from step {self._again} on, {_for_how_long(self._limit)}")
        return "; ".join(said)


def _for_how_long(limit: Limit) -> str:
    return "without a limit" if limit is None else f"for {span(limit)} at most"
