"""Whether ranks that stand at one safe point go on from it, or end because one of them is to. Pure.

A signal reaches one rank, and were that one to end alone the others would wait for it in their next
collective. But where all stand at one safe point anyway, in a pause or for what they decide, they can agree
to end together.
"""

from zloom.rounds import Register

PATIENCE = 5.0
"""Seconds that a rank stands where others do without an answer of the register: it may have one for them."""


class Parting:
    """What one rank knows of it. `depart` may be called from any thread, the rest is the training's."""

    def __init__(self) -> None:
        self.register: Register | None = None
        """Shared by the ranks; without one each is on its own."""
        self.reason = ""
        """Why the ranks that met at the last safe point are to end; empty where they go on."""
        self._own = ""
        self._meeting = ""
        self._silent_since: float | None = None
        """Since when the register has not told this meeting's end."""
        self._left = ""
        """The one that this rank left last, of which others may still ask."""
        self._in_pause = "start"
        """What made the ranks pause: a round, before the first that they were started so."""

    def depart(self, reason: str) -> None:
        """This rank is to end. It takes no lock."""
        self._own = reason

    @property
    def leaves_alone(self) -> bool:
        """Whether this rank is to end, and has no others to tell of it: no pause may hold it any more."""
        return bool(self._own) and self.register is None

    @property
    def meets(self) -> bool:
        """Whether this rank stands where others do, and has not learnt yet whether all are to end."""
        return bool(self._meeting)

    def decided(self, round: str) -> None:
        """All ranks pass this safe point, for all have promised to decide a round here.

        Only of one that was committed: where others have promised nothing they pass by.
        """
        self._meet(f"{round}/decided")

    def concluded(self, round: str) -> None:
        """All ranks pass this safe point, for all have carried a round's update out here and keep it."""
        self._meet(f"{round}/concluded")

    def paused(self, step: int, round: str = "") -> None:
        """All ranks pause here, by a command of this round; again by the last one, where none is named."""
        self._in_pause = round or self._in_pause
        self._meeting, self._silent_since = f"{self._in_pause}/paused/{step}", None

    def _meet(self, meeting: str) -> None:
        # The first counts: it is the same everywhere, and what a pause serves comes after the pause.
        self._meeting = self._meeting or meeting

    def is_over(self) -> bool:
        """Return whether a rank that stands here too has been told to end. Asked in a pause, now and then."""
        return bool(self._meeting and self.register is not None and self.register.part(self._meeting, None))

    def tell(self) -> None:
        """If this rank is to end, say so before what it does next lets another go on from here."""
        if self._own and self._meeting and self.register is not None:
            self.register.part(self._meeting, self._own)

    def go_on(self, now: float) -> None:
        """Leave this safe point, and learn whether all that met here are to end.

        Where the register is silent this rank stays a while: what it has asked may be what the others find.
        """
        self.reason = ""
        if self._meeting and self.register is not None:
            said = self.register.part(self._meeting, self._own)
            if said is None and not self._is_late(now):
                return
            self.reason = self._own if said is None else said  # what it asked for may be written all the same
            self.register.leave(self._meeting)
            self._left = self._meeting
        self._meeting, self._silent_since = "", None

    def _is_late(self, now: float) -> bool:
        self._silent_since = now if self._silent_since is None else self._silent_since
        return now - self._silent_since >= PATIENCE

    @property
    def is_needed(self) -> bool:
        """Whether another rank may still ask a register that ends with this process."""
        return bool(self._left and self.register is not None and self.register.is_needed(self._left))
