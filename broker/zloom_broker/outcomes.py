"""Outcomes on their way from replicas through the journal to whoever follows or watches.

What one turn of the loop brings is written as one record for each attempt, and what comes while such a record
is on its way to the disk waits for the next: a change to a thousand replicas has a thousand outcomes within
milliseconds, and what is done for each costs the broker its time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from zloom import messages
from zloom.messages import Answered
from zloom.model import Outcome
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.followers import Followers
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.records import AnyRecord, OutcomesRecorded, size_of

MAX_BATCH = 1000
"""Outcomes from which on a record takes no more: it must be encoded within a turn of the loop."""

MAX_RECORDED = 10_000
"""Revisions from which on a ping takes no more; what does not go in is sent, and named, again."""

PAGE = 256 * 1024
"""Bytes of outcomes in one publication: a quarter of what a message may hold. A longer one goes alone."""

Mark = tuple[AttemptKey, int, str]
"""A revision, and the replica that answered it."""

Observer = Callable[[Attempt, Ledger, float], object]
Companion = Callable[[Attempt, Mapping[int, Outcome]], list[AnyRecord]]


@dataclass(slots=True)
class _Batch:
    """New outcomes of an attempt that are to be written together."""

    attempt: Attempt
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    senders: dict[Mark, Peer] = field(default_factory=dict)
    beside: list[AnyRecord] = field(default_factory=list)
    """What is to be written with them."""

    def record(self) -> OutcomesRecorded:
        """Return the record of them."""
        return OutcomesRecorded(run=self.attempt.run, attempt=self.attempt.id, outcomes=self.outcomes)


class Outcomes:
    """Records outcomes and tells those who follow the revision."""

    def __init__(self, hub: Hub, followers: Followers) -> None:
        self._hub = hub
        self._followers = followers
        self._batches: dict[AttemptKey, _Batch] = {}
        self._under_way = 0
        """Batches that were handed to the journal, and of which it has not told."""
        self._writing: set[Mark] = set()
        self._observers: list[Observer] = []
        self._companions: list[Companion] = []
        hub.before_commit = self.write  # or what follows from these would be on disk before them

    def observe(self, observer: Observer) -> None:
        """Have each revision handed over that has a new outcome, with the time."""
        self._observers.append(observer)

    def accompany(self, companion: Companion) -> None:
        """Have a replica's new outcomes handed over, by revision, for what is to be written with them."""
        self._companions.append(companion)

    def receive(self, peer: Peer, message: messages.Outcomes) -> None:
        """A replica answers: have what is new written at the end of the turn, and acknowledge all of it."""
        if not peer.synced:
            # Its numbers may be those of a history that this broker does not have; it sends them again.
            return
        attempt = self._hub.state.attempts[peer.attempt]
        new: dict[int, Outcome] = {}
        for number, outcome in message.outcomes.items():
            if outcome.replica != peer.replica or not outcome.outcome:
                _acknowledge(peer, number)
                continue
            ledger = attempt.ledger(number)
            if ledger is not None and ledger.is_of_another_history(outcome):
                # Not acknowledged, or that might be taken for the acknowledgement of this history's revision.
                self._hub.counters["outcomes_of_another_history"] += 1
            elif (peer.attempt, number, peer.replica) in self._writing:
                pass  # acknowledged once it is on disk
            elif ledger is not None and ledger.is_new(outcome) and not ledger.is_beside_config(outcome):
                new[number] = replace(outcome, chain=b"") if outcome.chain else outcome
            else:
                _acknowledge(peer, number)
        if new and not self._hub.settings.read_only:
            self._add(peer, attempt, new)

    def _add(self, peer: Peer, attempt: Attempt, new: Mapping[int, Outcome]) -> None:
        batch = self._batches.get(attempt.key)
        if batch is None:
            batch = self._batches[attempt.key] = _Batch(attempt)
        for number, outcome in new.items():
            mark = attempt.key, number, peer.replica
            batch.senders[mark] = peer
            self._writing.add(mark)
            batch.outcomes.setdefault(number, []).append(outcome)
        for companion in self._companions:
            batch.beside += companion(attempt, new)
        if len(batch.senders) >= MAX_BATCH:
            self.write()

    def end_turn(self) -> None:
        """Write what this turn brought, unless what came before is still being written."""
        if not self._under_way:
            self.write()

    def write(self) -> None:
        """Write what is to be written now."""
        while self._batches:
            batch = self._batches.pop(next(iter(self._batches)))
            self._under_way += 1
            try:
                self._hub.commit(
                    batch.record(),
                    *batch.beside,
                    then=partial(self._recorded, batch),
                    failed=partial(self._not_recorded, batch),
                    durable=self._hub.settings.durable,
                )
            except BaseException:  # a bug: they are taken when they come again
                self._not_recorded(batch, "")
                raise

    def _recorded(self, batch: _Batch) -> None:
        self._done(batch)
        for (_, number, _), peer in batch.senders.items():
            _acknowledge(peer, number)
        for number, outcomes in batch.outcomes.items():
            self.announce(batch.attempt, number, [outcome.replica for outcome in outcomes], self._hub.now)

    def _not_recorded(self, batch: _Batch, reason: str) -> None:
        # The replicas send it again.
        self._done(batch)

    def _done(self, batch: _Batch) -> None:
        self._under_way -= 1
        self._writing.difference_update(batch.senders)

    def announce(self, attempt: Attempt, number: int, replicas: Iterable[str], now: float) -> None:
        """Tell those who watch or follow what the outcomes of some replicas are now."""
        ledger = attempt.ledgers[number]
        self._followers.changed(attempt, ledger, now)
        self._hub.report(attempt.run, partial(_answered, attempt, ledger, replicas))
        for observer in self._observers:
            observer(attempt, ledger, now)


def _answered(attempt: Attempt, ledger: Ledger, replicas: Iterable[str]) -> Iterator[Answered]:
    for outcomes in _pages(ledger.outcomes[replica] for replica in replicas):
        yield Answered(
            run=attempt.run,
            attempt=attempt.id,
            revision=ledger.revision.revision,
            outcomes=outcomes,
            settled=ledger.settled,
        )


def _acknowledge(peer: Peer, revision: int) -> None:
    if len(peer.recorded) < MAX_RECORDED:
        peer.recorded.add(revision)


def _pages(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Yield them in lists that fit into a message each."""
    page: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        length = size_of(outcome)
        if page and size + length > PAGE:
            yield page
            page, size = [], 0
        page.append(outcome)
        size += length
    if page:
        yield page
