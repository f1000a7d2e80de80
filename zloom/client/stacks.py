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
from zloom.messages import GetStacks, Stacks, StacksTaken
from zloom.model import GONE, ReplicaStatus
from zloom.stacks import of_replica
from zloom.words import MAX_NAMED, left_as, nobody_there


class Inspecting(Questions, Caller):
    """The calls of an operator that look into the processes of a run."""

    async def stacks(self, run: str, *, rank: int | None = None, attempt: str = "") -> list[Stacks]:
        """Return the Python stacks of each replica that is there, in the order of ranks.

        Behind them stands each rank that is gone, without threads, with its `state` and the `reason`.

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
        replicas, gone = await self._inhabitants(run, attempt)
        wanted = [each for each in replicas if rank in (None, each.rank)]
        if not wanted:
            there = ", ".join(str(each.rank) for each in replicas)
            left = [f": {left_as(each.state, each.reason)}" for each in gone if each.rank == rank]
            text = f"{run} has no rank {rank} that is there{''.join(left)}; its ranks are: {there}"
            raise Refused("no_replica", text)
        taken = await asyncio.gather(*(self._stacks_of(each.replica) for each in wanted))
        return [*taken, *(_of_gone(each) for each in gone if rank is None)]

    async def _inhabitants(self, run: str, attempt: str) -> tuple[list[ReplicaStatus], list[ReplicaStatus]]:
        """Return the replicas of an attempt that are there, and the last of each rank of which none is."""
        replicas = await self.replicas(run, attempt=attempt)
        if not replicas:
            await self.keys(run, attempt=attempt)  # refused, with what there is, where there is none
        there = [each for each in replicas if each.state not in GONE]
        if not there:
            raise Refused("no_replica", _nobody_there(replicas))
        newest = [each for each in replicas if each.attempt == there[0].attempt]
        present = sorted((each for each in newest if each.state not in GONE), key=lambda each: each.rank)
        ranks = {each.rank for each in present}
        gone = {each.rank: each for each in newest if each.rank not in ranks}
        return present, [gone[rank] for rank in sorted(gone)]

    async def _stacks_of(self, replica: str) -> Stacks:
        found = await self._ask(GetStacks(id=fresh_id(), replica=replica), Stacks)
        if found.threads or found.host != socket.gethostname():
            return found
        threads, at = read_hold(replica)
        if not threads:
            return found
        written = f"by its watchdog, {time.time() - at:.0f} s ago"
        return replace(found, threads=threads, reason=f"{found.reason} (these stacks were written {written})")


def _of_gone(status: ReplicaStatus) -> Stacks:
    return of_replica("", status, StacksTaken(id=0, reason=status.reason))


def _nobody_there(gone: list[ReplicaStatus]) -> str:
    run, attempt = gone[0].run, gone[0].attempt
    members = sorted((each.rank, each.reason) for each in gone if each.attempt == attempt)
    return nobody_there(run, attempt, members[-MAX_NAMED:])
