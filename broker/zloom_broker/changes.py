"""The requests that make a revision: set, rollback, command, cancel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from zloom.codec import steer_topic, watch_topic
from zloom.errors import Refused
from zloom.messages import Cancel, Preview, Revised, Rollback, SendCommand, SetConfig
from zloom.model import MAX_NOTE, GuardEnd, Revision
from zloom_broker import rules
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.chain import chained
from zloom_broker.followers import Followers
from zloom_broker.guard_ends import touches
from zloom_broker.guards import Done, Guards
from zloom_broker.hub import BROKER, Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.outcomes import Outcomes
from zloom_broker.previews import problems
from zloom_broker.queries import Queries
from zloom_broker.ramping import under_way
from zloom_broker.records import AnyRecord, GuardEnded, RevisionAccepted
from zloom_broker.requests import Requests, digest_of
from zloom_broker.steering import Steering
from zloom_broker.tentative import Tentative, values_size
from zloom_broker.undecided import Change, Undecided
from zloom_broker.withdrawals import Withdrawal


class Restoration(SetConfig, frozen=True, kw_only=True):
    """The broker's own request, which brings what is in force to ranks that lack it."""


class Changes:
    """Validates changes, gives them their revision, and fans them out once they are on disk."""

    def __init__(
        self,
        hub: Hub,
        requests: Requests,
        queries: Queries,
        followers: Followers,
        outcomes: Outcomes,
        steering: Steering,
        guards: Guards,
    ) -> None:
        self._hub = hub
        self._requests = requests
        self._queries = queries
        self._followers = followers
        self._outcomes = outcomes
        self._steering = steering
        self._guards = guards
        guards.revert_by(self._revert)
        self._tentative: dict[AttemptKey, Tentative] = {}
        """Revisions that are being written."""
        self._undecided = Undecided()

    def receive(self, peer: Peer, request: Change, now: float) -> None:
        """Take a request for a change.

        Raises:
            Refused: It cannot be done; nothing was changed.
        """
        if not isinstance(request, Cancel) and request.preview:
            self._hub.send(peer, self._preview(peer, request, now))
            return
        key = self._judge(peer, request, now)
        if key is not None:
            self._undecided.add(key, peer, request)

    def _judge(self, peer: Peer, request: Change, now: float) -> AttemptKey | None:
        """Make the change, or return the attempt whose revisions that are being written it must wait for.

        Raises:
            Refused: It cannot be done; nothing was changed.
        """
        if self._requests.seen_before(peer, request, now):
            return None
        self._hub.check_takes_requests(self._undecided.size)
        attempt = self._queries.attempt(request, peer.access)
        key = attempt.key
        if key in self._hub.forgetting:
            raise Refused("unknown_attempt", f"{attempt.run} ({attempt.id}) is being forgotten")
        tentative = self._tentative.get(key) or Tentative()
        try:
            revision, targets = self._next_revision(peer, request, attempt, tentative, now)
        except Refused:
            if not tentative:
                raise
            # An answer shows durable state only. So it is either refused in the light of that …
            self._next_revision(peer, request, attempt, Tentative(), now)
            # … or waits until the revision that stands against it is durable, or has come to nothing.
            return key
        self._accept(key, _Accepting(peer, request, revision, targets), now)
        return None

    def _revert(self, attempt: Attempt, ledger: Ledger, why: str, done: Done, now: float) -> bool:
        """Give the keys of a revision, which are as it made them, the values that they had before it.

        Args:
            attempt: Of the revision.
            ledger: The revision.
            why: What its guard saw.
            done: Told how the guard ended once it is on disk, or None when it could not be written.
            now: Seconds on the monotonic clock.

        Returns:
            Whether it is being written; else another change stands in the way.

        Raises:
            Refused: It cannot be done now.
        """
        self._hub.check_writable()
        key, number = attempt.key, ledger.revision.revision
        tentative = self._tentative.get(key) or Tentative()
        if key in self._hub.forgetting or any(touches(each, ledger.revision) for each in tentative):
            return False
        before = attempt.config.at(number - 1)
        request = SetConfig(
            id=f"revert:{attempt.run}:{attempt.id}:{number}",
            run=attempt.run,
            attempt=attempt.id,
            changes={name: before[name].value for name in ledger.revision.changes},
            note=f"reverted: {why}"[:MAX_NOTE],
        )
        revision, targets = self._next_revision(BROKER, request, attempt, tentative, now)
        end = GuardEnd("reverted", why, self._hub.wall(now), revision.revision)
        record = GuardEnded(run=attempt.run, attempt=attempt.id, revision=number, end=end)
        accepting = _Accepting(
            BROKER, request, revision, targets, [record], lambda written: done(end if written else None)
        )
        self._accept(key, accepting, now)
        return True

    def _preview(self, peer: Peer, request: SetConfig | Rollback | SendCommand, now: float) -> Preview:
        attempt = self._queries.attempt(request, peer.access)
        preview = Preview(id=request.id, run=attempt.run, attempt=attempt.id)
        try:
            self._hub.check_writable()
            revision, targets = self._next_revision(peer, request, attempt, Tentative(), now)
        except Refused as refused:
            return msgspec.structs.replace(preview, problems=problems(attempt, request, refused))
        bare = msgspec.structs.replace(revision, by="", at=0.0, request_id="", chain=b"")
        return msgspec.structs.replace(preview, revision=bare, targets=targets)

    def _next_revision(
        self,
        peer: Peer,
        request: Change,
        attempt: Attempt,
        tentative: Tentative,
        now: float,
    ) -> tuple[Revision, list[str]]:
        number = attempt.revision + len(tentative) + 1
        if not isinstance(request, Cancel):
            rules.check_expected(request.expected_revision, number - 1)
            rules.check_note(request.note)
        proposed, targets = self._propose(request, attempt, tentative, now)
        revision = msgspec.structs.replace(
            proposed,
            revision=number,
            by=peer.user,
            at=self._hub.wall(now),
            request_id=request.id,
            restores=isinstance(request, Restoration),
        )
        rules.check_room(attempt, tentative.size + values_size(revision))
        return chained(revision, tentative.chain(attempt.chain)), targets

    def _accept(self, key: AttemptKey, accepting: "_Accepting", now: float) -> None:
        peer, request, revision, targets, *_ = accepting
        record = RevisionAccepted(
            run=key[0], attempt=key[1], revision=revision, targets=targets, request_digest=digest_of(request)
        )
        withdrawal = Withdrawal(self._steering, self._outcomes, self._hub.state.attempts[key], record)

        def then(waiting: list[Peer]) -> None:
            now = self._hub.now
            attempt = self._hub.state.attempts[key]
            ledger = attempt.ledgers[revision.revision]
            self._no_longer_tentative(key, revision)
            self._publish(key, revision)
            withdrawal.written(now)
            for each in waiting:
                self._followers.confirm(each, request.id, attempt, ledger, now)
            accepting.done(True)
            self._guards.accepted(attempt, ledger, now)
            self._steering.accepted(attempt, ledger, now)
            self._decide(key)

        def failed() -> None:
            self._no_longer_tentative(key, revision)
            withdrawal.not_written()
            accepting.done(False)
            if key not in self._tentative:  # it was the last of those that failed together
                self._decide(key)

        durable = self._hub.settings.durable or revision.kind != "config"
        records: list[AnyRecord] = [record, *withdrawal.records, *accepting.beside]
        try:
            records += self._guards.beside(*key, revision, targets)
            self._requests.commit(
                peer, request, record.request_digest, records, then, failed, durable=durable
            )
        except BaseException:  # a bug: what it takes back may be taken back again
            withdrawal.not_written()
            raise
        self._tentative.setdefault(key, Tentative()).add(revision)

    def _no_longer_tentative(self, key: AttemptKey, revision: Revision) -> None:
        self._tentative[key].remove(revision)
        if not self._tentative[key]:
            del self._tentative[key]

    def _publish(self, key: AttemptKey, revision: Revision) -> None:
        revised = Revised(epoch=self._hub.settings.epoch, run=key[0], attempt=key[1], revision=revision)
        self._hub.publish(steer_topic(*key), revised)
        self._hub.publish(watch_topic(key[0]), revised)

    def _decide(self, key: AttemptKey) -> None:
        """Judge what waited, one after the other: behind one that must wait on the others wait too, or each
        revision that is written would have all of them looked at."""
        while (waiting := self._undecided.take(key)) is not None:
            peer, request, _ = waiting
            if peer.revoked:
                continue
            try:
                waits = self._judge(peer, request, self._hub.now) is not None
            except Refused as refused:
                self._hub.refuse(peer, request.id, refused)
            except Exception as error:  # noqa: BLE001 - a bug, which is not to hold up those behind it
                self._hub.stumbled(peer, request.id, error)
            else:
                if waits:
                    self._undecided.put_back(key, waiting)
                    return

    def _propose(self, request: Change, attempt: Attempt, tentative: Tentative, now: float) -> rules.Proposal:
        early = partial(self._queries.is_early, attempt)
        match request:
            case SetConfig():
                if request.revert_if:
                    self._guards.check(attempt, request.revert_if)
                request = rules.counted(attempt, request, self._step(attempt, now))
                return rules.propose_set(attempt, request, tentative.scheduled, early=early)
            case Rollback():
                config = attempt.config.now() | tentative.settings()
                return rules.propose_rollback(attempt, request, config, tentative.scheduled)
            case SendCommand():
                return rules.propose_command(attempt, request, early=early)
            case Cancel():
                agreed = self._steering.is_agreed(attempt, request.revision)
                ramping = self._ramping(attempt, request.revision)
                return rules.propose_cancel(attempt, request, agreed=agreed, ramping=ramping)

    def _step(self, attempt: Attempt, now: float) -> int | None:
        vitals = [self._hub.vitals[r.id] for r in attempt.present() if r.id in self._hub.vitals]
        return max((each.step_at(now) for each in vitals if each.knows_step), default=None)

    def _ramping(self, attempt: Attempt, number: int) -> set[str]:
        ledger = attempt.ledger(number)
        statuses = {
            r.id: self._hub.vitals[r.id].status for r in attempt.present() if r.id in self._hub.vitals
        }
        return set() if ledger is None else under_way(ledger, statuses)


class _Accepting(NamedTuple):
    """A revision on its way to the disk."""

    peer: Peer
    request: Change
    revision: Revision
    targets: list[str]
    beside: Sequence[AnyRecord] = ()
    """To be written with it."""
    done: Callable[[bool], None] = lambda written: None
    """Told whether it was written."""
