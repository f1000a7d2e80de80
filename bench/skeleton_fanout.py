"""What a change to many weavelets cannot do without: the skeleton of a fan-out.

operator → broker, commit, → each weavelet on its loop → broker, commit, → operator. They are the same
sockets, loops, thread of the journal, tables and messages as zloom's, encoded once at one end and decoded
once at the other. That one hangs or is cut off must be seen in time, so there is a beat at zloom's pace,
which each weavelet answers with a status, and libzmq's heartbeats. A weavelet checks that no revision is
missing and that the value is one, calls the handler, and keeps the outcome until a ping acknowledges it; the
broker counts outcomes by replica. But nothing is sent again or told to anybody else, and neither end has
anything of what only connects, declares, restores, agrees or watches.
"""

import asyncio
import itertools
import sys
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path

import zmq

from bench.echo import Context, open_socket
from bench.floor_fanout import SEPARATOR
from bench.roles import announce
from bench.skeleton import Committing, Frames, Port, port
from bench.trainer import ATTEMPT, KEY, RUN
from zloom import codec
from zloom import messages as m
from zloom.declarations import declare_key
from zloom.model import Outcome, Revision
from zloom.socket_options import SocketOptions
from zloom_broker.hub import CoreSettings
from zloom_broker.pulse import RECORDED_BEATS, paced
from zloom_broker.records import OutcomesRecorded, encode

Batch = list[tuple[bytes, m.Outcomes]]
"""Outcomes that are written together, each with who sent it."""

EPOCH, CHAIN = "0" * 16, bytes(16)
"""As long as zloom's are."""


class Broker:
    """Passes each change of the operator on to so many weavelets, and answers it with the outcomes of all.

    Args:
        size: How many.
        folder: Of the database.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._size = size
        self._subscribed = 0
        self._numbers = itertools.count(1)
        self._operator, self._request = b"", ""
        self._ledgers: dict[int, dict[str, Outcome]] = {}
        """What each replica answered, by revision."""
        self._recorded: dict[bytes, list[int]] = {}
        """Revisions whose outcomes are on disk, by the weavelet that is still to be told."""
        self._committing = Committing(folder, "buffered", self._committed)
        self._uncommitted = deque[m.SetConfig | Batch]()
        self._gathered: Batch = []
        self._writing = False
        """Whether outcomes are being written."""
        self._heard: dict[bytes, m.Status] = {}
        """The newest of each weavelet."""
        self._revised: m.Revised | None = None
        """The revision that is committed, and is to be published once all have subscribed."""

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
        seconds = paced(CoreSettings(EPOCH).beat, self._size)
        beat = codec.encode(m.Beat(epoch=EPOCH, revision=0, beat=seconds))
        for number in itertools.count(1):
            self._updates.send([codec.steer_topic(RUN, ATTEMPT), beat])
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
                self._operator, self._request = frames[0], request.id
                self._uncommitted.append(request)
                self._committing.put(frames)

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
            self._uncommitted.append(batch)
            self._committing.put([encode(OutcomesRecorded(run=RUN, attempt=ATTEMPT, outcomes=outcomes))])

    def _committed(self, frames: Frames) -> None:
        match self._uncommitted.popleft():
            case m.SetConfig() as request:
                number = next(self._numbers)
                revision = Revision(number, "config", request.changes, mode="immediate", chain=CHAIN)
                self._ledgers[number] = {}
                self._revised = m.Revised(
                    seq=number, epoch=EPOCH, run=RUN, attempt=ATTEMPT, revision=revision
                )
                self._publish()
            case batch:
                for peer, message in batch:
                    for answered, outcome in message.outcomes.items():
                        self._count(peer, answered, outcome)
                self._write()

    def _publish(self) -> None:
        if self._revised is not None and self._subscribed == self._size:
            self._updates.send([codec.steer_topic(RUN, ATTEMPT), codec.encode(self._revised)])
            self._revised = None

    def _count(self, peer: bytes, revision: int, outcome: Outcome) -> None:
        ledger = self._ledgers[revision]
        ledger[outcome.replica] = outcome
        self._recorded.setdefault(peer, []).append(revision)
        if len(ledger) == self._size:
            self._answer(revision, list(ledger.values()))

    def _answer(self, number: int, outcomes: list[Outcome]) -> None:
        state = m.RevisionState(
            id=self._request,
            run=RUN,
            attempt=ATTEMPT,
            revision=number,
            outcomes=outcomes,
            settled=True,
        )
        self._control.send([self._operator, *codec.control_frames(state)])


def join(context: Context, endpoints: str, ranks: range, stack: AsyncExitStack) -> None:
    """Have a weavelet of each of the ranks answer on the running loop as long as the stack lasts."""
    control, updates = endpoints.split(SEPARATOR)
    for rank in ranks:
        answers = stack.enter_context(open_socket(context, zmq.DEALER, control))
        subscriber = stack.enter_context(open_socket(context, zmq.SUB, updates))
        subscriber.subscribe(codec.steer_topic(RUN, ATTEMPT))
        weavelet = Weavelet(rank)
        weavelet.control = stack.enter_context(port(answers, weavelet.pinged))
        stack.enter_context(port(subscriber, weavelet.receive))


class Weavelet:
    """Applies whatever is published, and tells of itself at each beat.

    Args:
        rank: Its own.
    """

    control: Port
    """To the broker."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._statuses = itertools.count(1)
        self._revision = 0
        self._key = declare_key(KEY, self._set, initial=0.1, immediate=True)
        self._kept: dict[int, Outcome] = {}
        """Outcomes until their acknowledgement."""

    def receive(self, frames: Frames) -> None:
        """Take a publication."""
        match codec.published.decode(frames[-1]):
            case m.Revised(epoch=epoch, revision=revision):
                self._apply(revision)
                outcome = Outcome(f"{self._rank:016x}", self._rank, "applied", 1, chain=revision.chain)
                self._kept[revision.revision] = outcome
                self._send(m.Outcomes(epoch=epoch, outcomes={revision.revision: outcome}))
            case m.Beat():
                self._send(m.Status(seq=next(self._statuses), step=1))

    def pinged(self, frames: Frames) -> None:
        """Take a ping."""
        ping = codec.from_broker.decode(codec.control_payload(frames))
        assert isinstance(ping, m.Ping)
        for revision in ping.recorded:
            self._kept.pop(revision, None)
        self._send(m.Pong(id=ping.id, received=0))

    def _apply(self, revision: Revision) -> None:
        assert revision.revision == self._revision + 1
        self._revision = revision.revision
        value = self._key.read(revision.changes[KEY])
        self._key.handler(value)
        self._key.value = value

    def _set(self, value: float) -> None:
        """Do nothing, as the handler of zloom's weavelets here."""

    def _send(self, message: m.ToBroker) -> None:
        self.control.send(codec.control_frames(message))


def request(number: int) -> Frames:
    """Return the change that an operator asks for."""
    changes = {KEY: 0.2 + number % 2 / 10}
    return codec.control_frames(m.SetConfig(id=f"{number:016x}", run=RUN, changes=dict(changes)))


def answered(frames: Frames) -> int:
    """Return of how many weavelets an answer has the outcome."""
    state = codec.from_broker.decode(codec.control_payload(frames))
    assert isinstance(state, m.RevisionState)
    return len(state.outcomes)


async def _main(size: int, folder: Path) -> None:
    await Broker(size, folder).serve()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
