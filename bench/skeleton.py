"""What no change can do without, as programs that do nothing else: the skeleton of zloom.

operator → broker, commit, → weavelet → the training thread, between two steps, and back → broker, commit, →
operator. They are the same sockets, loops, threads, tables and messages as zloom's, and keep what it promises
of a change while nothing fails: `bench.skeleton_broker`, `bench.skeleton_weavelet` and
`bench.skeleton_trainer` say how. Here is the operator.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import zmq

from bench import roles
from bench.echo import open_socket
from bench.floor_fanout import SEPARATOR
from bench.parts import SECONDS_SILENT, Parts, Plan, awaited
from bench.results import Load
from bench.skeleton_parts import Frames, Port
from bench.skeleton_weavelet import LOAD
from bench.trainer import KEY, RUN
from zloom import codec
from zloom import messages as m
from zloom.model import Mode, Value
from zloom_broker.settings import Durability


class Operator:
    """Asks for changes over one socket; many can be on their way.

    Args:
        socket: To the broker, on the running loop.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._waiting: dict[str, asyncio.Future[m.RevisionState]] = {}
        self._numbers = itertools.count(1)
        self._port = Port(socket, self._received)
        self.close = self._port.close

    async def set(self, key: str, value: Value, mode: Mode = "next") -> m.RevisionState:
        """Change a key; returns what the replicas answered, once all have.

        Raises:
            TimeoutError: Not all did in time.
        """
        request = m.SetConfig(id=f"{next(self._numbers):016x}", run=RUN, changes={key: value}, mode=mode)
        settled: asyncio.Future[m.RevisionState] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = settled
        self._port.send(codec.control_frames(request))
        async with asyncio.timeout(SECONDS_SILENT):
            return await settled

    def _received(self, frames: Frames) -> None:
        state = codec.from_broker.decode(codec.control_payload(frames))
        assert isinstance(state, m.RevisionState)
        if state.settled and not (waiting := self._waiting.pop(state.id)).done():
            waiting.set_result(state)


@contextlib.contextmanager
def operator(endpoints: str) -> Iterator[Operator]:
    """Connect an operator on the running loop as long as the block lasts.

    Args:
        endpoints: As the broker tells them.
    """
    with (
        zmq.Context() as context,
        open_socket(context, zmq.DEALER, endpoints.split(SEPARATOR)[0]) as socket,
        contextlib.closing(Operator(socket)) as opened,
    ):
        yield opened


class SkeletonBench:
    """A change of one key, from the call to the outcome of the trainer."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._values = itertools.cycle((0.1, 0.2))

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`."""
        return await awaited(plan, self.change)

    async def change(self) -> None:
        """See `OpenBench`."""
        await self._operator.set(KEY, next(self._values))

    async def train(self, load: Load) -> None:
        """See `Bench`."""
        await self._operator.set(LOAD, load)


@contextlib.asynccontextmanager
async def skeleton(parts: Parts, durability: Durability) -> AsyncIterator[SkeletonBench]:
    """Start it with all its parts, as long as the block lasts."""
    with (
        roles.process("bench.skeleton_broker", "1", durability, str(parts.folder)) as endpoints,
        roles.process("bench.skeleton_trainer", endpoints),
        operator(endpoints) as opened,
    ):
        yield SkeletonBench(opened)
