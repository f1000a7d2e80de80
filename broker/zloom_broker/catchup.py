"""What a weavelet lacks: the log after its position, or a snapshot when it has none or another history."""

import heapq

import msgspec

from zloom.messages import Log, Snapshot, Sync
from zloom.model import Event, Revision
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub, Peer

LOG_PAGE = 512 * 1024
"""Bytes of revisions in one answer: half of what a message may hold."""

PENDING_SIZE = 128 * 1024
"""Bytes of revisions in a snapshot beyond which it leaves out those that the config can stand for: a joiner
that comes under a flood must not be sent all of it, and the config takes up to half of a message."""

KEPT_PAGES = 4
"""Pages of logs that are kept: all ranks of a run come back at once and lack the same, up to some pages."""

_encoder = msgspec.msgpack.Encoder()


class LogPages:
    """Makes pages of logs, and keeps the newest; not thread-safe."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._pages: dict[tuple[AttemptKey, bytes, int], Log] = {}
        """By what they follow and were made of: the attempt, its digest, a revision."""

    def after(self, attempt: Attempt, position: int) -> Log:
        """Return what follows a revision of an attempt, as much as fits into a message."""
        key = attempt.key, attempt.chain, position
        log = self._pages.get(key)
        if log is None:
            if len(self._pages) >= KEPT_PAGES:
                del self._pages[next(iter(self._pages))]
            log = self._pages[key] = _log(self._epoch, attempt, position)
        return log


def catch_up(hub: Hub, pages: LogPages, peer: Peer, sync: Sync, now: float) -> None:
    """Answer a weavelet that asks for what it lacks."""
    attempt = hub.state.attempts[peer.attempt]
    if sync.revision < 0 and _is_torn(attempt, peer.replica):
        hub.counters["syncs_put_off"] += 1  # it asks again
        hub.tell_credit(peer, 1)  # and so knows that it is heard
    elif sync.revision < 0:
        peer.synced = True
        hub.send(peer, _snapshot(hub, attempt, _pending(attempt, peer.replica)))
    elif sync.revision <= attempt.revision and attempt.chain_at(sync.revision) == sync.chain:
        peer.synced = True
        hub.send(peer, pages.after(attempt, sync.revision))
    elif hub.settings.read_only:
        # The journal is damaged: the weavelet knows better. It asks until somebody has repaired it.
        hub.counters["syncs_unanswered"] += 1
        hub.tell_credit(peer, 1)
    else:
        _roll_back(hub, peer, attempt, sync.revision, now)


def _is_torn(attempt: Attempt, replica: str) -> bool:
    """Whether others have agreed on an update, and nobody knows yet whether they keep it.

    It is in no snapshot that a newcomer could be given now, and no round will bring it there.
    """
    pending = attempt.open.values()
    return any(
        each.agreed is not None and each.revision.kind == "config" and replica not in each.targets
        for each in pending
    )


def _roll_back(hub: Hub, peer: Peer, attempt: Attempt, revision: int, now: float) -> None:
    peer.synced = True
    text = f"{peer.replica} held revision {revision} of a history that this broker does not have"
    hub.event(Event("rolled_back", attempt.run, attempt.id, text=text, replicas=[peer.replica]), now)
    hub.counters["rolled_back"] += 1
    # A command that it carried out in the history that is gone it knows again, and only answers for it.
    hub.send(peer, _snapshot(hub, attempt, _pending(attempt, peer.replica), rolled_back=True))


def _pending(attempt: Attempt, replica: str) -> list[Revision]:
    pending = pending_for(attempt, replica)
    fits = len(_encoder.encode(pending)) <= PENDING_SIZE
    return pending if fits else pending_for(attempt, replica, brief=True)


def pending_for(attempt: Attempt, replica: str, *, brief: bool = False) -> list[Revision]:
    """Return what is still to come for a replica that joins, in order.

    That is what waits for a step, what the replica owes, and, unless `brief`, what it lost before it had any
    history, and config that is not settled, or settled by losses alone: taken from the snapshot as a mere
    value, without an answer, that would stay here when all others reject it. And whatever must come after one
    of these: its cancel, and later values of its keys.
    """
    numbers: set[int] = set()
    keys: set[str] = set()
    # Nothing can follow before the first, and there may be a million of them.
    ended = set() if brief else attempt.losses.get(replica, set()) | attempt.doubtful
    unsure = sorted(attempt.open.keys() | ended)
    to_come = (number for number in unsure if _is_to_come(attempt, number, replica, brief=brief))
    first = next(to_come, attempt.revision + 1)
    ahead = sorted(number for number in attempt.noted.union(unsure) if number >= first)
    while ahead:
        number = heapq.heappop(ahead)
        if number in numbers:
            continue
        revision = attempt.ledgers.revision(number)  # without what became of it, which is longer
        follows = revision.cancels in numbers or any(
            attempt.config.stands(number, key) for key in keys.intersection(revision.changes)
        )
        if follows or _is_to_come(attempt, number, replica, brief=brief):
            numbers.add(number)
            for key in revision.changes.keys() - keys:
                ahead += attempt.config.touching(key, revision.revision)
            heapq.heapify(ahead)
            keys.update(revision.changes)
    return [attempt.ledgers.revision(number) for number in sorted(numbers)]


def _is_to_come(attempt: Attempt, number: int, replica: str, *, brief: bool) -> bool:
    if number in attempt.losses.get(replica, ()):
        return not brief
    is_open = number in attempt.open
    if not is_open and (brief or number not in attempt.doubtful):
        return False
    ledger = attempt.ledgers[number]
    if replica in ledger.outcomes:
        return False
    uncertain = not brief and ledger.revision.kind == "config"
    return uncertain or (is_open and (ledger.scheduled or replica in ledger.targets))


def _snapshot(hub: Hub, attempt: Attempt, pending: list[Revision], *, rolled_back: bool = False) -> Snapshot:
    return Snapshot(
        epoch=hub.settings.epoch,
        revision=attempt.revision,
        chain=attempt.chain,
        config=attempt.config.without(pending),
        pending=pending,
        rolled_back=rolled_back,
    )


def _log(epoch: str, attempt: Attempt, position: int) -> Log:
    page: list[Revision] = []
    size = 0
    for revision in attempt.ledgers.after(position):
        size += len(_encoder.encode(revision))
        if page and size > LOG_PAGE:
            return Log(epoch=epoch, revisions=page, more=True)
        page.append(revision)
    return Log(epoch=epoch, revisions=page)
