"""What peers without credit are still to be told of revisions. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from zloom_broker.attempt import Attempt
from zloom_broker.hub import Hub, Peer

MAX_OWED = 4096
"""States that one peer is owed at most; others are counted as dropped, and come when they are asked for."""


class Debt(NamedTuple):
    """A peer is to be told a revision's state, whatever it is by then."""

    attempt: Attempt
    """This very one: another of the same name, after it was forgotten, has other revisions."""
    revision: int
    request: str
    """Whose answer it is."""


class Owed:
    """Debts by connection, each peer's in the order in which they were made."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._debts: dict[bytes, OrderedDict[Debt, bool]] = {}

    def owe(self, peer: Peer, debt: Debt, *, duplicate: bool) -> None:
        """Remember a debt until the peer has credit again; a second one for the same is the same."""
        debts = self._debts.setdefault(peer.id, OrderedDict())
        if debt in debts or len(debts) < MAX_OWED:
            debts[debt] = debts.get(debt, False) or duplicate
        else:
            self._hub.counters["dropped_for_credit"] += 1

    def due(self, peer: Peer) -> Iterator[tuple[Debt, bool]]:
        """Yield what the peer is owed and has credit for now, with whether its request came again."""
        debts = self._debts.get(peer.id, OrderedDict())
        while debts and self._hub.may_send(peer):
            yield debts.popitem(last=False)
        if not debts:
            self._debts.pop(peer.id, None)

    def forgive(self, peer: Peer) -> None:
        """The connection is gone."""
        self._debts.pop(peer.id, None)
