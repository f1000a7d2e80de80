"""What a change to many weavelets cannot do without: the skeleton of a fan-out.

operator → broker, commit, → each weavelet on its loop → broker, commit, → operator. They are the same
sockets, loops, thread of the journal, tables and messages as zloom's, encoded once at one end and decoded
once at the other. That one hangs or is cut off must be seen in time, so there is a beat at zloom's pace,
which each weavelet answers with a status, and libzmq's heartbeats. But no value is checked, no handler
called, nothing is counted by replica, acknowledged, sent again or told to anybody else.
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
from zloom.model import Outcome, Revision
from zloom.socket_options import SocketOptions
from zloom_broker.hub import CoreSettings
from zloom_broker.pulse import paced

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
        self._outcomes: list[Outcome] = []
        self._committing = Committing(folder, "buffered", self._committed)
        self._uncommitted = deque[m.ToBroker]()
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
        while True:
            self._updates.send([codec.steer_topic(RUN, ATTEMPT), beat])
            await asyncio.sleep(seconds)

    def _subscription(self, frames: Frames) -> None:
        self._subscribed += 1
        self._publish()

    def _received(self, frames: Frames) -> None:
        match codec.to_broker.decode(frames[-1]):
            case m.Status() as status:
                self._heard[frames[0]] = status
            case message:
                self._uncommitted.append(message)
                self._committing.put(frames)

    def _committed(self, frames: Frames) -> None:
        match self._uncommitted.popleft():
            case m.SetConfig() as request:
                self._operator, self._request = frames[0], request.id
                number = next(self._numbers)
                revision = Revision(number, "config", request.changes, mode="immediate", chain=CHAIN)
                self._revised = m.Revised(
                    seq=number, epoch=EPOCH, run=RUN, attempt=ATTEMPT, revision=revision
                )
                self._publish()
            case m.Outcomes(outcomes=outcomes):
                self._outcomes += outcomes.values()
                if len(self._outcomes) == self._size:
                    self._answer(*outcomes)

    def _publish(self) -> None:
        if self._revised is not None and self._subscribed == self._size:
            self._updates.send([codec.steer_topic(RUN, ATTEMPT), codec.encode(self._revised)])
            self._revised = None

    def _answer(self, number: int) -> None:
        outcomes, self._outcomes = self._outcomes, []
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
        weavelet = Weavelet(rank, stack.enter_context(port(answers, _nothing)))
        stack.enter_context(port(subscriber, weavelet.receive))


class Weavelet:
    """Applies whatever is published, and tells of itself at each beat.

    Args:
        rank: Its own.
        control: To the broker.
    """

    def __init__(self, rank: int, control: Port) -> None:
        self._rank = rank
        self._control = control
        self._statuses = itertools.count(1)

    def receive(self, frames: Frames) -> None:
        """Take a publication."""
        match codec.published.decode(frames[-1]):
            case m.Revised(epoch=epoch, revision=revision):
                outcome = Outcome(f"{self._rank:016x}", self._rank, "applied", 1, chain=revision.chain)
                self._send(m.Outcomes(epoch=epoch, outcomes={revision.revision: outcome}))
            case m.Beat():
                self._send(m.Status(seq=next(self._statuses), step=1))

    def _send(self, message: m.ToBroker) -> None:
        self._control.send(codec.control_frames(message))


def request(number: int) -> Frames:
    """Return the change that an operator asks for."""
    changes = {KEY: 0.2 + number % 2 / 10}
    return codec.control_frames(m.SetConfig(id=f"{number:016x}", run=RUN, changes=dict(changes)))


def answered(frames: Frames) -> int:
    """Return of how many weavelets an answer has the outcome."""
    state = codec.from_broker.decode(codec.control_payload(frames))
    assert isinstance(state, m.RevisionState)
    return len(state.outcomes)


def _nothing(frames: Frames) -> None:
    """Take what never comes."""


async def _main(size: int, folder: Path) -> None:
    await Broker(size, folder).serve()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
