"""The broker's durable state: the fold of the records of the journal."""

from collections import OrderedDict
from collections.abc import Iterator

from zloom.oldest import forget_oldest
from zloom_broker.attempt import Attempt, AttemptKey, Place, Places
from zloom_broker.parts import Parts
from zloom_broker.records import (
    AnyRecord,
    AttemptForgotten,
    AttemptStarted,
    DeviceFailed,
    EpochStarted,
    GuardEnded,
    GuardMeasured,
    Image,
    OutcomesRecorded,
    ReplicaJoined,
    ReplicaLeft,
    RevisionAccepted,
    RevisionAgreed,
    RevisionConcluded,
)

RequestKey = tuple[str, str]
"""(user, request id)"""

ERRANDS_KEPT = 10_000
"""Errands whose request ids are remembered: a monitor that reports a device each second gets hours."""


class State:
    """All attempts, the requests that had an effect, and the epoch."""

    def __init__(self) -> None:
        self.epoch: EpochStarted | None = None
        self.attempts: dict[AttemptKey, Attempt] = {}
        """In the order in which they started: the broker's clock may be set back, the journal cannot."""
        self.homes: dict[str, AttemptKey] = {}
        """The attempt of each replica."""
        self.requests: Places = {}
        self.errands = OrderedDict[RequestKey, DeviceFailed | AttemptForgotten]()
        """What a request did that made no revision."""
        self.failed_devices: dict[str, DeviceFailed] = {}

    def apply(self, record: AnyRecord) -> None:
        """Take in one record. Records come in the order of the journal."""
        match record:
            case EpochStarted():
                self.epoch = record
            case AttemptStarted():
                self.attempts[record.run, record.attempt] = Attempt(record)
            case ReplicaJoined():
                self._join(record)
            case ReplicaLeft():
                self.attempts[record.run, record.attempt].leave(record)
            case RevisionAccepted():
                self._accept(record)
            case OutcomesRecorded():
                self.attempts[record.run, record.attempt].record(record)
            case RevisionAgreed():
                self.attempts[record.run, record.attempt].agree(record)
            case RevisionConcluded():
                self.attempts[record.run, record.attempt].conclude(record)
            case GuardMeasured():
                self.attempts[record.run, record.attempt].measure(record)
            case GuardEnded():
                self.attempts[record.run, record.attempt].end_guard(record)
            case DeviceFailed():
                self.failed_devices[record.device] = record
                self._remember(record)
            case AttemptForgotten():
                self._forget((record.run, record.attempt))
                self._remember(record)

    def pack(self) -> Iterator[None]:
        """Do what takes long about a snapshot, one revision at each turn; records may be taken in between."""
        for attempt in list(self.attempts.values()):
            yield from attempt.pack()

    def parts(self) -> dict[bytes, bytes]:
        """Return what `image` names and does not hold, by digest; most is as it was a snapshot ago."""
        parts: dict[bytes, bytes] = {}
        for attempt in self.attempts.values():
            parts.update(attempt.parts())
        return parts

    def image(self) -> Image:
        """Return the whole state, from which and from whose parts `restore` makes it again.

        Raises:
            ImageError: It would not be this state.
        """
        attempts = [attempt.image() for attempt in self.attempts.values()]
        return Image(self.epoch, attempts, list(self.failed_devices.values()), list(self.errands.values()))

    @classmethod
    def restore(cls, image: Image, parts: Parts) -> "State":
        """Return the state of an image.

        Args:
            image: As `image` returned it.
            parts: At least those that it names.

        Raises:
            ImageError: It is not what it says it is.
            msgspec.DecodeError: A part is none that this version knows.
        """
        state = cls()
        state.epoch = image.epoch
        state.failed_devices = {failed.device: failed for failed in image.failed_devices}
        state.errands = OrderedDict(((errand.by, errand.request_id), errand) for errand in image.errands)
        for part in image.attempts:
            attempt = Attempt.restore(part, parts, state.requests)
            key = attempt.run, attempt.id
            state.attempts[key] = attempt
            state.homes.update(dict.fromkeys(attempt.replicas, key))
        return state

    def made_by(self, request: RequestKey) -> tuple[Attempt, int] | None:
        """Return the revision that a request made, or None when it made none."""
        user, request_id = request
        place = self.requests.get(user, {}).get(request_id)
        if place is None:
            return None
        attempt = self.attempts[place.attempt]
        return attempt, attempt.ledgers.made_by(user, request_id, place.first, place.last)

    def of_run(self, run: str) -> list[Attempt]:
        """Return the attempts of a run, newest last; of all runs when it is empty."""
        return [attempt for attempt in self.attempts.values() if run in ("", attempt.run)]

    def _join(self, record: ReplicaJoined) -> None:
        key = record.replica.run, record.replica.attempt
        self.homes[record.replica.id] = key
        self.attempts[key].join(record)

    def _accept(self, record: RevisionAccepted) -> None:
        key = record.run, record.attempt
        attempt = self.attempts[key]
        attempt.accept(record)
        place = Place(attempt.key, attempt.revision, attempt.revision)
        self.requests.setdefault(record.revision.by, {})[record.revision.request_id] = place

    def _forget(self, key: AttemptKey) -> None:
        del self.attempts[key]
        self.homes = {replica: home for replica, home in self.homes.items() if home != key}
        for user, made in list(self.requests.items()):
            self.requests[user] = {request: place for request, place in made.items() if place.attempt != key}
            if not self.requests[user]:
                del self.requests[user]

    def _remember(self, errand: DeviceFailed | AttemptForgotten) -> None:
        self.errands[errand.by, errand.request_id] = errand
        forget_oldest(self.errands, ERRANDS_KEPT)
