"""Where a weavelet stands in its attempt's history, and what came too early for it. Pure."""

from collections.abc import Iterable

from zloom.messages import Log, Snapshot, Sync
from zloom.model import Revision
from zloom.restoring import Restore
from zloom.session_effects import Deliver, Effect

BUFFER_LIMIT = 10_000
"""Revisions kept while a synchronisation is under way, about 2 MB; beyond it all are left to the log."""


class History:
    """The newest revision that was delivered, and those that wait for the ones before them."""

    def __init__(self) -> None:
        self.revision = -1
        """The newest that was delivered; -1 until a snapshot came."""
        self.incomplete = True
        """Whether the broker is known to have more."""
        self._chain = b""
        self._epoch = ""
        self._early: dict[int, Revision] = {}
        self._restored = False
        self._chains: dict[int, bytes] | None = None
        """Digests of what may be answered, since the broker's history replaced this one; None before that."""

    def connected(self) -> None:
        """A connection begins: whatever was kept may belong to another history."""
        self._early.clear()
        self._restored, self.incomplete = False, True

    def question(self, nonce: str) -> Sync:
        """Return the message that asks for what is lacking."""
        return Sync(nonce=nonce, epoch=self._epoch, revision=self.revision, chain=self._chain)

    def take_snapshot(self, snapshot: Snapshot) -> list[Effect]:
        """Stand where a snapshot stands; at most once a connection, because a sync may be sent twice."""
        if self._restored or (self.revision >= 0 and not snapshot.rolled_back):
            return []
        self._restored, self._epoch, self.incomplete = True, snapshot.epoch, False
        self.revision, self._chain = snapshot.revision, snapshot.chain
        if snapshot.rolled_back:
            self._chains = {each.revision: each.chain for each in snapshot.pending}
        restore = Restore(
            snapshot.revision,
            snapshot.config,
            snapshot.pending,
            snapshot.epoch,
            frozenset(each.chain for each in snapshot.pending if each.mode == "consistent"),
            snapshot.rolled_back,
        )
        return [restore, *self._advance(())]

    def take_log(self, log: Log) -> list[Effect]:
        """Step over what a log holds; a part that is known already does no harm."""
        self._epoch = log.epoch
        effects = self._advance(log.revisions)
        self.incomplete = log.more or bool(self._early)
        return effects

    def take(self, revision: Revision) -> list[Effect]:
        """Take a revision that was published: deliver it, ignore it as known, or keep it."""
        if revision.revision > self.revision + 1 or self.incomplete:
            self._keep(revision)
            return []
        return self._advance([revision])

    def is_of_another(self, revision: int, chain: bytes) -> bool:
        """Whether a digest is of a history that was replaced, in which that number means another revision."""
        return self._chains is not None and chain not in (b"", self._chains.get(revision))

    def told(self, newest: int) -> None:
        """The broker told its newest revision."""
        self.incomplete = self.incomplete or newest > self.revision

    def _keep(self, revision: Revision) -> None:
        self.incomplete = True
        self._early[revision.revision] = revision
        if len(self._early) > BUFFER_LIMIT:
            self._early.clear()

    def _advance(self, log: Iterable[Revision]) -> list[Effect]:
        effects: list[Effect] = []
        self._step_over(log, effects)
        if self._early:
            self._step_over([self._early[number] for number in sorted(self._early)], effects)
            self._early = {number: each for number, each in self._early.items() if number > self.revision}
        self.incomplete = bool(self._early)
        return effects

    def _step_over(self, revisions: Iterable[Revision], effects: list[Effect]) -> None:
        for revision in revisions:
            if revision.revision == self.revision + 1:
                self.revision, self._chain = revision.revision, revision.chain
                if self._chains is not None:
                    self._chains[revision.revision] = revision.chain
                effects.append(Deliver(revision))
