"""What the training thread and the weavelet's loop share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from zloom.errors import UndoError
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.messages import Failure
from zloom.metrics import MetricBuffer
from zloom.model import Phase


def _nobody(*_: object) -> None:
    """Tell nobody."""


@dataclass(slots=True, eq=False)
class Training:
    """One trainer, as the loop sees it and as it sees the loop.

    The training thread writes `step`, `phase`, `thread`, `trained`, `serving` and `stood`, and calls `enter`,
    the loop writes `broken`; each reads the other's without a lock, because a value that is a moment old is
    as good.
    """

    registry: Registry
    mailbox: Mailbox
    metrics: MetricBuffer
    wake: Callable[[], None] = _nobody
    """Called on the loop's thread when something was put into the mailbox."""
    activated: Callable[[bool], None] = _nobody
    """Called on the loop's thread when the session becomes active, or is no longer."""
    failed: Callable[[Failure], None] = _nobody
    """Called on the loop's thread with a failure to be told."""
    step: int = 0
    phase: Phase = "training"
    """To be set by `enter`."""
    _away: tuple[float, float | None] = 0.0, None
    """Seconds in other phases that are over, and since when there is another; one tuple, so of one moment."""
    thread: int | None = None
    """Identifier of the training thread, as far as it is known."""
    elsewhere: str = ""
    """Why the trainer's threads are not in this process; empty where they are."""
    trained: bool = False
    """The step that began last was trained: this safe point is behind it."""
    serving: bool = False
    """The mailbox is being run."""
    stood: bool = False
    """A safe point that begins no step was reached: changes have a place to be applied at."""
    broken: UndoError | None = None
    """An immediate update could not be taken back; the training thread is to raise this."""
    subscribers: list[tuple[str, Callable[[str, bytes, str], object]]] = field(default_factory=list)
    """Prefixes of own topics, and who takes topic, payload and sender on the loop's thread."""

    def enter(self, phase: Phase, now: float) -> None:
        """Take note of what the trainer does from now on, in seconds of one clock."""
        self._away = self.away(now), None if phase == "training" else now
        self.phase = phase

    def away(self, now: float) -> float:
        """Return the seconds so far in which the trainer was in another phase than training."""
        over, since = self._away
        return over if since is None else over + now - since

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits for a safe point and no handler runs in one.

        The training thread sets `serving` before it clears `waiting`, so reading them the other way round
        cannot miss both.
        """
        return not self.mailbox.waiting and not self.serving
