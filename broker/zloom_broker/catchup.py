"""What a weavelet lacks: the log after its position, or a snapshot when it has none or another history."""

import msgspec

from zloom.messages import Log, Snapshot, Sync
from zloom.model import Event, Revision
from zloom_broker.attempt import Attempt
from zloom_broker.hub import Hub, Peer

LOG_PAGE = 512 * 1024
"""Bytes of revisions in one answer: half of what a message may hold."""

_encoder = msgspec.msgpack.Encoder()


def catch_up(hub: Hub, peer: Peer, sync: Sync, now: float) -> None:
    """Answer a weavelet that asks for what it lacks."""
    attempt = hub.state.attempts[peer.attempt]
    if sync.revision < 0:
        hub.send(peer, _snapshot(hub, attempt, rolled_back=False))
    elif sync.revision > attempt.revision or attempt.chain_at(sync.revision) != sync.chain:
        text = f"{peer.replica} held revision {sync.revision} of a history that this broker does not have"
        event = Event("rolled_back", attempt.run, attempt.id, text=text, replicas=[peer.replica])
        hub.event(event, now)
        hub.counters["rolled_back"] += 1
        hub.send(peer, _snapshot(hub, attempt, rolled_back=True))
    else:
        hub.send(peer, _log(hub, attempt, sync.revision))


def _snapshot(hub: Hub, attempt: Attempt, *, rolled_back: bool) -> Snapshot:
    return Snapshot(
        epoch=hub.settings.epoch,
        revision=attempt.revision,
        chain=attempt.chain,
        config=attempt.changed(),
        pending=[ledger.revision for ledger in attempt.scheduled()],
        rolled_back=rolled_back,
    )


def _log(hub: Hub, attempt: Attempt, position: int) -> Log:
    page: list[Revision] = []
    size = 0
    for ledger in attempt.ledgers[position:]:
        size += len(_encoder.encode(ledger.revision))
        if page and size > LOG_PAGE:
            return Log(epoch=hub.settings.epoch, revisions=page, more=True)
        page.append(ledger.revision)
    return Log(epoch=hub.settings.epoch, revisions=page)
