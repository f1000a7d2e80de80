"""What the threads of a run's replicas do right now."""

import asyncio
import socket
import time

from msgspec.structs import replace

from zloom.client.caller import Caller
from zloom.client.link import fresh_id
from zloom.client.questions import Questions
from zloom.errors import Refused
from zloom.hold_watch import read_hold
from zloom.messages import GetStacks, Stacks
from zloom.model import GONE, ReplicaStatus
from zloom.words import MAX_NAMED, nobody_there


class Inspecting(Questions, Caller):
    """The calls of an operator that look into the processes of a run."""

    async def stacks(self, run: str, *, rank: int | None = None, attempt: str = "") -> list[Stacks]:
        """Return the Python stacks of each replica that is there, in the order of ranks.

        They are taken without the training's co-operation, also while it is blocked in a collective. Of one
        that holds the GIL they are there where this process runs on its host, as its user; elsewhere `reason`
        says why there are none, and `hold` has them once the GIL is free again.

        Args:
            run: Which run.
            rank: Only this rank.
            attempt: Which attempt; the newest by default, those with replicas first.

        Raises:
            Refused: There is no such run, attempt or rank.
        """
        replicas = await self._inhabitants(run, attempt)
        wanted = [each for each in replicas if rank in (None, each.rank)]
        if not wanted:
            there = ", ".join(str(each.rank) for each in replicas)
            raise Refused("no_replica", f"{run} has no rank {rank} that is there; its ranks are: {there}")
        return await asyncio.gather(*(self._stacks_of(each.replica) for each in wanted))

    async def _inhabitants(self, run: str, attempt: str) -> list[ReplicaStatus]:
        replicas = await self.replicas(run, attempt=attempt)
        if not replicas:
            await self.keys(run, attempt=attempt)  # refused, with what there is, where there is none
        there = [each for each in replicas if each.state not in GONE]
        if not there:
            raise Refused("no_replica", _nobody_there(replicas))
        newest = {each.attempt for each in there[:1]}
        return sorted((each for each in there if each.attempt in newest), key=lambda each: each.rank)

    async def _stacks_of(self, replica: str) -> Stacks:
        found = await self._ask(GetStacks(id=fresh_id(), replica=replica), Stacks)
        if found.threads or found.host != socket.gethostname():
            return found
        threads, at = read_hold(replica)
        if not threads:
            return found
        written = f"by its watchdog, {time.time() - at:.0f} s ago"
        return replace(found, threads=threads, reason=f"{found.reason} (these stacks were written {written})")


def _nobody_there(gone: list[ReplicaStatus]) -> str:
    run, attempt = gone[0].run, gone[0].attempt
    members = sorted((each.rank, each.reason) for each in gone if each.attempt == attempt)
    return nobody_there(run, attempt, members[-MAX_NAMED:])
