"""Hellos of replicas that wait for the disk, and goodbyes that wait for what becomes of them. Pure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from zloom.messages import Hello
from zloom.model import Replica
from zloom_broker.permissions import Access
from zloom_broker.records import ReplicaLeft


class Greeted(NamedTuple):
    """A hello, from where it came and from whom."""

    identity: bytes
    hello: Hello
    access: Access


class Join(NamedTuple):
    """A hello of a replica."""

    greeted: Greeted
    replica: Replica
    revoked: bool = False
    """Its key was taken from it while it was written: it is written all the same, and nobody is welcomed."""


@dataclass(slots=True, eq=False)
class Registration:
    """A row that is being written, and whom it is for."""

    newest: Join
    """The newest hello of the replica since then."""
    said_goodbye: ReplicaLeft | None
    """The replica had left for good, or was about to: so it has again if nobody is welcomed."""
    before: ReplicaLeft | None
    """The departure that was being written then, which the row comes after."""


class Joins:
    """The newest hello of each replica that waits for the disk, and what was said on older connections."""

    def __init__(self) -> None:
        self.coming: dict[str, Join] = {}
        """Those that wait for what the replica declared or said before it."""
        self.registering: dict[str, Registration] = {}
        """Those whose registration is being written."""
        self._goodbyes: dict[str, Callable[[], None]] = {}

    def newest(self, replica: str) -> bytes | None:
        """Return the connection of a replica's newest hello that may still be welcomed."""
        join = self.coming.get(replica)
        if join is None and replica in self.registering:
            join = self.registering[replica].newest
        return None if join is None or join.revoked else join.greeted.identity

    def replicas(self) -> Iterator[Replica]:
        """Iterate over those who are being registered."""
        return (each.newest.replica for each in self.registering.values())

    def revoke(self, users: Collection[str]) -> list[Join]:
        """The keys of these users were taken from them; return their hellos, which count no more."""
        revoked = []
        for replica, join in [*self.coming.items()]:
            if join.greeted.access.user in users:
                revoked.append(self.coming.pop(replica))
        for each in self.registering.values():
            if each.newest.greeted.access.user in users and not each.newest.revoked:
                revoked.append(each.newest)
                each.newest = each.newest._replace(revoked=True)
        return revoked

    def defer(self, replica: str, goodbye: Callable[[], None]) -> bool:
        """Keep a goodbye that came behind the hello of a newer connection, in case nobody is welcomed there.

        Returns:
            Whether it is kept; the first is.
        """
        return self._goodbyes.setdefault(replica, goodbye) is goodbye

    def welcomed(self, replica: str) -> bool:
        """A replica is there; return whether a goodbye was kept, which is worth nothing any more."""
        return self._goodbyes.pop(replica, None) is not None

    def take_goodbye(self, replica: str) -> Callable[[], None] | None:
        """Return the goodbye that was kept, once no hello waits any more; it was the last word."""
        if replica in self.coming or replica in self.registering:
            return None
        return self._goodbyes.pop(replica, None)
