"""Outcomes on their way from replicas through the journal to whoever follows or watches."""

from collections.abc import Callable, Mapping
from functools import partial

from msgspec.structs import replace

from zloom import messages
from zloom.codec import watch_topic
from zloom.messages import Answered, OutcomesReceived, RevisionState
from zloom.model import Outcome
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.owed import Debt, Owed
from zloom_broker.records import AnyRecord, OutcomesRecorded

PUSH_INTERVAL = 0.1
"""Seconds between two pushes of a revision that is not settled. The last one, which settles it, goes out at
once."""

PUSH_SHARE = 0.001
"""Seconds between them for each target, where that is more: each push lists the outcomes of all."""

FollowKey = tuple[AttemptKey, int]

Observer = Callable[[Attempt, Ledger, float], object]
Companion = Callable[[Attempt, Mapping[int, Outcome]], list[AnyRecord]]


class Outcomes:
    """Records outcomes and tells those who follow the revision."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._followers: dict[FollowKey, dict[bytes, str]] = {}
        """Connection → the request that its pushes answer, the first one."""
        self._pushed: dict[FollowKey, float] = {}
        self._due: dict[FollowKey, float] = {}
        self._owed = Owed(hub)
        self._writing: set[tuple[AttemptKey, int, str]] = set()
        self._observers: list[Observer] = []
        self._companions: list[Companion] = []

    def observe(self, observer: Observer) -> None:
        """Have each revision handed over that has a new outcome, with the time."""
        self._observers.append(observer)

    def accompany(self, companion: Companion) -> None:
        """Have a replica's new outcomes handed over, by revision, for what is to be written with them."""
        self._companions.append(companion)

    def receive(self, peer: Peer, message: messages.Outcomes, now: float) -> None:
        """A replica answers: write down what is new, then acknowledge all of it."""
        if not peer.synced:
            # Its numbers may be those of a history that this broker does not have; it sends them again.
            return
        attempt = self._hub.state.attempts[peer.attempt]
        own = {n: o for n, o in message.outcomes.items() if o.replica == peer.replica and o.outcome}
        # Not acknowledged, or the acknowledgement might be taken for that of this history's revision.
        other = {n for n, o in own.items() if attempt.is_of_another_history(n, o)}
        self._hub.counters["outcomes_of_another_history"] += len(other)
        writing = {n for n in own if (peer.attempt, n, peer.replica) in self._writing}
        new = {
            n: replace(o, chain=b"")
            for n, o in own.items()
            if n not in writing | other and attempt.is_new(n, o) and not attempt.is_beside_config(n, o)
        }
        rest = [n for n in message.outcomes if n not in new and n not in writing | other]
        if rest:
            self._hub.send(peer, OutcomesReceived(revisions=rest))
        if not new or self._hub.settings.read_only:
            return
        marks = {(peer.attempt, number, peer.replica) for number in new}
        self._writing |= marks
        records: list[AnyRecord] = [OutcomesRecorded(run=attempt.run, attempt=attempt.id, outcomes=new)]
        for companion in self._companions:
            records += companion(attempt, new)
        then = partial(self._recorded, peer, attempt, list(new), marks, now)
        failed = partial(self._not_recorded, marks)
        self._hub.commit(*records, then=then, failed=failed, durable=self._hub.settings.durable)

    def _recorded(
        self,
        peer: Peer,
        attempt: Attempt,
        numbers: list[int],
        marks: set[tuple[AttemptKey, int, str]],
        now: float,
    ) -> None:
        self._writing -= marks
        self.announce(attempt, numbers, peer.replica, now)
        self._hub.send(peer, OutcomesReceived(revisions=numbers))  # after those who wait for it: it can wait

    def _not_recorded(self, marks: set[tuple[AttemptKey, int, str]], reason: str) -> None:
        # The replica sends it again.
        self._writing -= marks

    def announce(self, attempt: Attempt, revisions: list[int], replica: str, now: float) -> None:
        """Tell those who watch or follow what a replica's outcomes are now."""
        for number in revisions:
            ledger = attempt.ledgers[number - 1]
            answered = Answered(
                run=attempt.run,
                attempt=attempt.id,
                revision=number,
                outcomes=[ledger.outcomes[replica]],
                settled=ledger.settled,
            )
            self._push((attempt.key, number), ledger, now)
            self._hub.publish(watch_topic(attempt.run), answered)
            for observer in self._observers:
                observer(attempt, ledger, now)

    # --- followers ---------------------------------------------------------------------------

    def follow(
        self,
        peer: Peer,
        request_id: str,
        attempt: Attempt,
        number: int,
        now: float,
        *,
        duplicate: bool = False,
    ) -> None:
        """Answer with a revision's state, and tell again when it changes."""
        ledger = attempt.ledgers[number - 1]
        if not ledger.settled:
            key = attempt.key, number
            self._followers.setdefault(key, {}).setdefault(peer.id, request_id)
            self._pushed.setdefault(key, now)
        self._tell(peer, Debt(attempt, number, request_id), duplicate=duplicate)

    def credited(self, peer: Peer) -> None:
        """A peer has received more: tell it what it is owed."""
        for debt, duplicate in self._owed.due(peer):
            self._tell(peer, debt, duplicate=duplicate)

    def _tell(self, peer: Peer, debt: Debt, *, duplicate: bool = False) -> None:
        attempt = debt.attempt
        if self._hub.state.attempts.get(attempt.key) is not attempt:  # it was forgotten meanwhile
            return
        if not self._hub.may_send(peer):
            self._owed.owe(peer, debt, duplicate=duplicate)
            return
        ledger = attempt.ledgers[debt.revision - 1]
        self._hub.send(peer, self._state(attempt, ledger, debt.request, duplicate=duplicate))

    def unfollow(self, peer: Peer) -> None:
        """A connection is gone, and with it whom to tell."""
        self._owed.forgive(peer)
        for key in [key for key, followers in self._followers.items() if peer.id in followers]:
            del self._followers[key][peer.id]
            if not self._followers[key]:
                self._drop(key)

    def _drop(self, key: FollowKey) -> None:
        del self._followers[key], self._pushed[key]
        self._due.pop(key, None)

    def next_push(self) -> float | None:
        """Return when a push that was held back is due."""
        return min(self._due.values(), default=None)

    def push_due(self, now: float) -> None:
        """Send the pushes that were held back."""
        for key in [key for key, when in self._due.items() if when <= now]:
            self._push(key, self._hub.state.attempts[key[0]].ledgers[key[1] - 1], now)

    def _push(self, key: FollowKey, ledger: Ledger, now: float) -> None:
        if key not in self._followers:
            return
        when = self._pushed[key] + max(PUSH_INTERVAL, PUSH_SHARE * len(ledger.targets))
        if not ledger.settled and when > now:
            self._due[key] = when
            return
        attempt, number = self._hub.state.attempts[key[0]], key[1]
        for identity, request_id in self._followers[key].items():
            peer = self._hub.peers.get(identity)
            if peer is not None:
                self._tell(peer, Debt(attempt, number, request_id))
        self._pushed[key] = now
        self._due.pop(key, None)
        if ledger.settled:
            self._drop(key)

    def _state(
        self, attempt: Attempt, ledger: Ledger, request_id: str, *, duplicate: bool = False
    ) -> RevisionState:
        return RevisionState(
            id=request_id,
            run=attempt.run,
            attempt=attempt.id,
            revision=ledger.revision.revision,
            durable=self._hub.settings.durable or ledger.revision.kind != "config",
            duplicate=duplicate,
            at_step=ledger.revision.at_step,
            outcomes=attempt.outcomes(ledger),
            settled=ledger.settled,
        )
