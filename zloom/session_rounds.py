"""What a weavelet said about consistent revisions and says again until it has an answer. Pure."""

from zloom.messages import Conclusion, Confirm, Decision, Promise
from zloom.session_effects import Effect
from zloom.session_link import INTERVAL, Link
from zloom.session_state import Alarm

Insistent = Promise | Confirm


class Rounds:
    """At most one message for each revision: its promise, later its confirmation.

    Beside that to an earlier life of the broker: who carried an update out for that one, of which this one
    may know nothing, waits for its end, whatever this one has to say of the revision.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unanswered: dict[tuple[int, str], Insistent] = {}
        """By revision and epoch."""

    def say(self, message: Insistent, now: float, *, active: bool) -> None:
        """Send a message soon, and again until it is answered.

        Not one that a late or repeated `Prepare` brings, of a round whose later word has no answer yet: that
        would be forgotten, and the training waits for its answer.
        """
        known = self._unanswered.get((message.revision, message.epoch))
        if known is not None and _place(known) > _place(message):
            return
        for place, earlier in list(self._unanswered.items()):
            if place[0] == message.revision and isinstance(earlier, Promise):
                del self._unanswered[place]
        self._unanswered[message.revision, message.epoch] = message
        if active:
            self._link.alarms.hasten(Alarm.ROUNDS, now)

    def resume(self, now: float) -> None:
        """The history is complete: the broker can answer."""
        if self._unanswered:
            self._link.alarms.hasten(Alarm.ROUNDS, now)

    def decided(self, decision: Decision) -> None:
        """A promise was answered."""
        self._drop(decision, Promise)

    def concluded(self, conclusion: Conclusion) -> None:
        """A confirmation was answered."""
        self._drop(conclusion, Confirm)

    def settled(self, revision: int) -> None:
        """The revision has an outcome here, which says more."""
        for place in [each for each in self._unanswered if each[0] == revision]:
            del self._unanswered[place]

    def send(self, now: float) -> list[Effect]:
        """Send what has no answer yet."""
        said = list(self._unanswered.values())
        # What promises nothing is said once: the broker tries another round by itself.
        self._unanswered = {
            place: each
            for place, each in self._unanswered.items()
            if not isinstance(each, Promise) or each.promised
        }
        if self._unanswered:
            self._link.alarms.set(Alarm.ROUNDS, now + INTERVAL)
        return [self._link.send(message) for message in said]

    def _drop(self, answer: Decision | Conclusion, kind: type[Insistent]) -> None:
        said = self._unanswered.get((answer.revision, answer.epoch))
        if isinstance(said, kind) and said.round == answer.round:
            del self._unanswered[answer.revision, answer.epoch]


def _place(message: Insistent) -> tuple[int, bool]:
    """Return what orders the messages of a revision: by round, in each the promise first."""
    return message.round, isinstance(message, Confirm)
