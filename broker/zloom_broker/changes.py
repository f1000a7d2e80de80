"""The requests that make a revision: set, rollback, command, cancel."""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b

import msgspec

from zloom.codec import encode, steer_topic, watch_topic
from zloom.errors import Refused
from zloom.messages import Cancel, Refusal, Revised, Rollback, RunRequest, SendCommand, SetConfig
from zloom.model import Revision
from zloom_broker import rules
from zloom_broker.attempt import Attempt, Setting
from zloom_broker.chain import chained
from zloom_broker.hub import Hub, Peer
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import RevisionAccepted
from zloom_broker.state import AttemptKey

Change = SetConfig | Rollback | SendCommand | Cancel


class _InFlight:
    """A request whose revision is being written, and who wants to know."""

    def __init__(self, digest: bytes, peer: Peer) -> None:
        self.digest = digest
        self.waiting = [peer]


class Changes:
    """Validates changes, gives them their revision, and fans them out once they are on disk."""

    def __init__(self, hub: Hub, outcomes: Outcomes) -> None:
        self._hub = hub
        self._outcomes = outcomes
        self._tentative: dict[AttemptKey, list[RevisionAccepted]] = {}
        self._in_flight: dict[tuple[str, str], _InFlight] = {}

    def receive(
        self, peer: Peer, request: Change, attempt_of: Callable[[RunRequest], Attempt], now: float
    ) -> None:
        """Take a request for a change.

        Raises:
            Refused: It cannot be done; nothing was changed.
        """
        digest = blake2b(encode(request), digest_size=16).digest()
        if self._seen_before(peer, request, digest, now):
            return
        if self._hub.settings.read_only:
            raise Refused("read_only", f"the journal is read-only: {self._hub.settings.read_only}")
        attempt = attempt_of(request)
        revision, targets = self._revision(peer, request, attempt, now)
        self._accept(peer, request.id, attempt, revision, targets, digest, now)

    def _seen_before(self, peer: Peer, request: Change, digest: bytes, now: float) -> bool:
        name = peer.user, request.id
        in_flight = self._in_flight.get(name)
        made = self._hub.state.requests.get(name)
        if in_flight is None and made is None:
            return False
        self._hub.counters["requests_repeated"] += 1
        if in_flight is not None:
            _same_body(request, in_flight.digest, digest)
            if peer not in in_flight.waiting:
                in_flight.waiting.append(peer)
        elif made is not None:
            attempt = self._hub.state.attempts[made[0]]
            _same_body(request, attempt.ledgers[made[1] - 1].request, digest)
            self._outcomes.follow(peer, request.id, attempt, made[1], now, duplicate=True)
        return True

    def _revision(
        self, peer: Peer, request: Change, attempt: Attempt, now: float
    ) -> tuple[Revision, list[str]]:
        tentative = self._tentative.get((attempt.run, attempt.id), [])
        number = attempt.revision + len(tentative) + 1
        if not isinstance(request, Cancel):
            rules.check_expected(request.expected_revision, number - 1)
        revision, targets = self._propose(request, attempt, tentative)
        revision = msgspec.structs.replace(
            revision, revision=number, by=peer.user, at=self._hub.wall(now), request_id=request.id
        )
        before = tentative[-1].revision.chain if tentative else attempt.chain
        return chained(revision, before), targets

    def _propose(
        self, request: Change, attempt: Attempt, tentative: list[RevisionAccepted]
    ) -> rules.Proposal:
        match request:
            case SetConfig():
                return rules.propose_set(attempt, request)
            case Rollback():
                return rules.propose_rollback(attempt, request, _with_tentative(attempt, tentative))
            case SendCommand():
                return rules.propose_command(attempt, request)
            case Cancel():
                return rules.propose_cancel(attempt, request)

    def _accept(
        self,
        peer: Peer,
        request_id: str,
        attempt: Attempt,
        revision: Revision,
        targets: list[str],
        digest: bytes,
        now: float,
    ) -> None:
        lost = [name for name in targets if name in attempt.left]
        record = RevisionAccepted(
            run=attempt.run, attempt=attempt.id, revision=revision, targets=targets, lost=lost, request=digest
        )
        key = attempt.run, attempt.id
        self._tentative.setdefault(key, []).append(record)
        self._in_flight[peer.user, request_id] = _InFlight(digest, peer)
        durable = self._hub.settings.durable or revision.kind != "config"
        self._hub.commit(
            record, partial(self._accepted, record, now), partial(self._not_accepted, record), durable=durable
        )

    def _accepted(self, record: RevisionAccepted, now: float) -> None:
        attempt = self._hub.state.attempts[record.run, record.attempt]
        waiting = self._settle(record)
        revised = Revised(epoch=self._hub.settings.epoch, revision=record.revision)
        self._hub.publish(steer_topic(record.run, record.attempt), revised)
        self._hub.publish(watch_topic(record.run), revised)
        for peer in waiting:
            self._outcomes.follow(peer, record.revision.request_id, attempt, record.revision.revision, now)

    def _not_accepted(self, record: RevisionAccepted, reason: str) -> None:
        text = f"the journal could not be written ({reason}); nothing was changed"
        for peer in self._settle(record):
            self._hub.send(peer, Refusal(id=record.revision.request_id, code="journal_failed", text=text))

    def _settle(self, record: RevisionAccepted) -> list[Peer]:
        key = record.run, record.attempt
        self._tentative[key].remove(record)
        if not self._tentative[key]:
            del self._tentative[key]
        return self._in_flight.pop((record.revision.by, record.revision.request_id)).waiting


def _same_body(request: Change, known: bytes, digest: bytes) -> None:
    if known != digest:
        raise Refused(
            "request_id_reused",
            f"request id {request.id[:64]!r} was used before with another body; use a fresh one",
        )


def _with_tentative(attempt: Attempt, tentative: list[RevisionAccepted]) -> dict[str, Setting]:
    config = attempt.config()
    for record in tentative:
        number = record.revision.revision
        config |= {key: Setting(value, number) for key, value in record.revision.changes.items()}
    return config
