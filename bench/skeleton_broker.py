"""The broker of the skeleton: `python -m bench.skeleton_broker SIZE DURABILITY FOLDER`.

It does with a change what zloom promises, as zloom does it where there is one way only: it refuses a value
that does not fit, and another change under the same id; numbers the change and chains it to those before; has
it on disk before it confirms and publishes it; counts the outcomes by replica, of which those that come in
one turn of its loop are one record; and tells the operator all of them once they are on disk too. Its beat,
libzmq's heartbeats and the weavelets' statuses are zloom's, as without them nobody could tell who hangs.
But nothing is sent again or told to anybody else, and it has nothing of what only connects, declares,
restores, agrees, guards or watches.
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path
from typing import cast

import zmq

from bench.echo import open_socket
from bench.floor_fanout import SEPARATOR
from bench.roles import announce
from bench.skeleton_parts import Committing, Frames, port
from bench.skeleton_weavelet import EPOCH, declared_keys, replica_id
from bench.trainer import ATTEMPT, RUN
from zloom import codec
from zloom import messages as m
from zloom.model import Outcome, Replica, Revision
from zloom.socket_options import SocketOptions
from zloom_broker.chain import chained
from zloom_broker.hub import CoreSettings
from zloom_broker.pulse import RECORDED_BEATS, paced
from zloom_broker.records import OutcomesRecorded, RevisionAccepted, encode
from zloom_broker.requests import digest_of
from zloom_broker.settings import Durability
from zloom_broker.validation import check_values, declared_by

Batch = list[tuple[bytes, m.Outcomes]]
"""Outcomes that are written together, each with who sent it."""


class Broker:
    """Passes each change of an operator on to so many weavelets, and answers it with the outcomes of all.

    Args:
        size: How many.
        durability: See `zloom_broker.settings`.
        folder: Of the database.
    """

    def __init__(self, size: int, durability: Durability, folder: Path) -> None:
        keys = [each.key for each in declared_keys().values()]
        self._replicas = [
            Replica(replica_id(rank), RUN, ATTEMPT, rank, size, keys=keys) for rank in range(size)
        ]
        self._durable = durability == "fsync"
        self._committing = Committing(folder, durability)
        self._subscribed = 0
        self._requests: dict[str, bytes] = {}
        """A digest of each that was made."""
        self._numbers = itertools.count(1)
        self._chain = b""
        """Of the newest revision."""
        self._operators: dict[int, tuple[bytes, str]] = {}
        """Who asked for a revision, and how he calls it."""
        self._ledgers: dict[int, dict[str, Outcome]] = {}
        """What each replica answered, by revision."""
        self._recorded: dict[bytes, list[int]] = {}
        """Revisions whose outcomes are on disk, by the weavelet that is still to be told."""
        self._gathered: Batch = []
        self._writing = False
        """Whether outcomes are being written."""
        self._heard: dict[bytes, m.Status] = {}
        """The newest of each weavelet."""
        self._revised: list[m.Revised] = []
        """Revisions that are committed, and are to be published once all have subscribed."""

    async def serve(self) -> None:
        """Be the broker, until the process is ended."""
        with (
            zmq.Context() as context,
            open_socket(context, zmq.ROUTER, "tcp://127.0.0.1:*") as control,
            context.socket(zmq.XPUB) as updates,
        ):
            SocketOptions().apply(updates, "xpub")
            updates.bind("tcp://127.0.0.1:*")
            with (
                port(control, self._received) as self._control,
                port(updates, self._subscription) as self._updates,
            ):
                self._committing.start()
                announce(SEPARATOR.join(each.get_string(zmq.LAST_ENDPOINT) for each in (control, updates)))
                await self._beat()

    async def _beat(self) -> None:
        seconds = paced(CoreSettings(EPOCH).beat, len(self._replicas))
        for number in itertools.count(1):
            beat = m.Beat(epoch=EPOCH, revision=len(self._ledgers), beat=seconds)
            self._updates.send([codec.steer_topic(RUN, ATTEMPT), codec.encode(beat)])
            if number % RECORDED_BEATS == 0:
                self._acknowledge(number)
            await asyncio.sleep(seconds)

    def _acknowledge(self, number: int) -> None:
        told, self._recorded = self._recorded, {}
        for peer, revisions in told.items():
            self._control.send(
                [peer, *codec.control_frames(m.Ping(id=number, received=0, recorded=revisions))]
            )

    def _subscription(self, frames: Frames) -> None:
        self._subscribed += 1
        self._publish()

    def _received(self, frames: Frames) -> None:
        match codec.to_broker.decode(frames[-1]):
            case m.Status() as status:
                self._heard[frames[0]] = status
            case m.Pong():
                pass  # its connection lives
            case m.Outcomes() as message:
                self._gather(frames[0], message)
            case m.SetConfig() as request:
                self._accept(frames[0], request)

    def _accept(self, peer: bytes, request: m.SetConfig) -> None:
        digest = digest_of(request)
        known = self._requests.setdefault(request.id, digest)
        assert known is digest, "none of these comes twice"
        for name, declared in declared_by(self._replicas, request.changes).items():
            check_values(request.changes[name], declared)
        revision = chained(
            Revision(
                next(self._numbers),
                "config",
                request.changes,
                mode=request.mode or "next",
                by="operator",
                at=time.time(),
                request_id=request.id,
            ),
            self._chain,
        )
        self._chain = revision.chain
        record = RevisionAccepted(
            run=RUN,
            attempt=ATTEMPT,
            revision=revision,
            targets=[each.id for each in self._replicas],
            request_digest=digest,
        )
        self._operators[revision.revision] = peer, request.id
        self._committing.put(encode(record), lambda: self._confirm(revision))

    def _confirm(self, revision: Revision) -> None:
        self._ledgers[revision.revision] = {}
        self._revised.append(
            m.Revised(seq=revision.revision, epoch=EPOCH, run=RUN, attempt=ATTEMPT, revision=revision)
        )
        self._publish()
        self._answer(revision.revision)

    def _publish(self) -> None:
        if self._subscribed == len(self._replicas):
            revised, self._revised = self._revised, []
            for each in revised:
                self._updates.send([codec.steer_topic(RUN, ATTEMPT), codec.encode(each)])

    def _gather(self, peer: bytes, message: m.Outcomes) -> None:
        """Have the outcomes of one turn of the loop written together, or of all while others are written."""
        self._gathered.append((peer, message))
        if len(self._gathered) == 1 and not self._writing:
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        batch, self._gathered = self._gathered, []
        self._writing = bool(batch)
        if batch:
            outcomes: dict[int, list[Outcome]] = {}
            for _, message in batch:
                for revision, outcome in message.outcomes.items():
                    outcomes.setdefault(revision, []).append(outcome)
            record = OutcomesRecorded(run=RUN, attempt=ATTEMPT, outcomes=outcomes)
            self._committing.put(encode(record), lambda: self._written(batch))

    def _written(self, batch: Batch) -> None:
        for peer, message in batch:
            for answered, outcome in message.outcomes.items():
                self._count(peer, answered, outcome)
        self._write()

    def _count(self, peer: bytes, revision: int, outcome: Outcome) -> None:
        ledger = self._ledgers[revision]
        ledger[outcome.replica] = outcome
        self._recorded.setdefault(peer, []).append(revision)
        if len(ledger) == len(self._replicas):
            self._answer(revision)

    def _answer(self, number: int) -> None:
        peer, request = self._operators[number]
        outcomes = list(self._ledgers[number].values())
        state = m.RevisionState(
            id=request,
            run=RUN,
            attempt=ATTEMPT,
            revision=number,
            durable=self._durable,
            outcomes=outcomes,
            settled=len(outcomes) == len(self._replicas),
        )
        self._control.send([peer, *codec.control_frames(state)])


def main(size: str, durability: str, folder: str) -> None:
    """Be the broker of so many weavelets, until the process is ended."""

    async def serve() -> None:
        await Broker(int(size), cast(Durability, durability), Path(folder)).serve()

    asyncio.run(serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
