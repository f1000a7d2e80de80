"""The broker's durable state: the fold of the records of the journal."""

from zloom_broker.attempt import Attempt
from zloom_broker.records import (
    AnyRecord,
    AttemptForgotten,
    AttemptStarted,
    DeviceFailed,
    EpochStarted,
    Image,
    OutcomesRecorded,
    ReplicaJoined,
    ReplicaLeft,
    RevisionAccepted,
)

AttemptKey = tuple[str, str]
"""(run, attempt)"""


class State:
    """All attempts, the requests that had an effect, and the epoch."""

    def __init__(self) -> None:
        self.epoch: EpochStarted | None = None
        self.attempts: dict[AttemptKey, Attempt] = {}
        self.requests: dict[tuple[str, str], tuple[AttemptKey, int]] = {}
        """(user, request id) → the revision that it made."""
        self.failed_devices: dict[str, DeviceFailed] = {}

    def apply(self, record: AnyRecord) -> None:
        """Take in one record. Records come in the order of the journal."""
        match record:
            case EpochStarted():
                self.epoch = record
            case AttemptStarted():
                self.attempts[record.run, record.attempt] = Attempt(record)
            case ReplicaJoined():
                self.attempts[record.replica.run, record.replica.attempt].join(record)
            case ReplicaLeft():
                self.attempts[record.run, record.attempt].leave(record)
            case RevisionAccepted():
                self._accept(record)
            case OutcomesRecorded():
                self.attempts[record.run, record.attempt].record(record)
            case DeviceFailed():
                self.failed_devices[record.device] = record
            case AttemptForgotten():
                self._forget((record.run, record.attempt))

    def image(self) -> Image:
        """Return the whole state, from which `restore` makes it again."""
        attempts = [attempt.image() for attempt in self.attempts.values()]
        return Image(self.epoch, attempts, list(self.failed_devices.values()))

    @classmethod
    def restore(cls, image: Image) -> "State":
        """Return the state of an image."""
        state = cls()
        state.epoch = image.epoch
        state.failed_devices = {failed.device: failed for failed in image.failed_devices}
        for part in image.attempts:
            attempt = Attempt.restore(part)
            state.attempts[attempt.run, attempt.id] = attempt
            for ledger in attempt.ledgers:
                made = (attempt.run, attempt.id), ledger.revision.revision
                state.requests[ledger.revision.by, ledger.revision.request_id] = made
        return state

    def of_run(self, run: str) -> list[Attempt]:
        """Return the attempts of a run, newest last; of all runs when it is empty."""
        found = (attempt for attempt in self.attempts.values() if run in ("", attempt.run))
        return sorted(found, key=lambda attempt: attempt.started.at)

    def _accept(self, record: RevisionAccepted) -> None:
        key = record.run, record.attempt
        self.attempts[key].accept(record)
        self.requests[record.revision.by, record.revision.request_id] = key, record.revision.revision

    def _forget(self, key: AttemptKey) -> None:
        del self.attempts[key]
        self.requests = {request: made for request, made in self.requests.items() if made[0] != key}
