"""What is seen of a broker before anything is sent: whether somebody listens, and its host is known."""

import asyncio
import contextlib

from zloom.bounded_calls import BoundedCalls
from zloom.cli import contact, output
from zloom.endpoints import host_problem, is_deserted
from zloom.errors import BrokerUnreachable

WAIT_TOLD_AFTER = 1.0
"""Seconds until it is said that nobody listens, as a look tells. A broker with an empty journal takes a third
of this to begin, one with a long journal more."""

LOOK_INTERVAL = 0.05
"""Seconds between two looks."""

RESOLVE_LIMIT = 1.0
"""Seconds that the resolver is asked for a host; one that takes longer may still tell libzmq."""


class UnknownHost(BrokerUnreachable):
    """The host of a broker's endpoint has no address here.

    Attributes:
        endpoint: Of the broker.
        problem: In the system's words.
    """

    def __init__(self, endpoint: str, problem: str) -> None:
        super().__init__(f"{contact.unknown_host(endpoint, problem)}; {contact.HOST_ADVICE}")
        self.endpoint, self.problem = endpoint, problem


async def look(endpoint: str, patience: float) -> None:
    """Return where a broker may answer, at once or when somebody listens.

    Args:
        endpoint: Of the broker.
        patience: Seconds to wait for one that is starting.

    Raises:
        BrokerUnreachable: None can.
    """
    await _await_listener(endpoint, patience)
    # libzmq asks for a name again and again, and never tells that nobody knows it.
    with contextlib.suppress(TimeoutError):
        if problem := BoundedCalls(min(RESOLVE_LIMIT, patience))(lambda: host_problem(endpoint)):
            raise UnknownHost(endpoint, problem)


async def _await_listener(endpoint: str, patience: float) -> None:
    loop = asyncio.get_running_loop()
    begun, told = loop.time(), False
    while is_deserted(endpoint):
        waited = loop.time() - begun
        if waited >= patience:
            raise BrokerUnreachable(
                f"nobody listens at {endpoint}, nor began to within {patience:g} s; start one with "
                "`zloom broker`, or name another with --broker or ZLOOM_BROKER"
            )
        if waited >= WAIT_TOLD_AFTER and not told:
            told = True
            rest = f"{patience - waited:.0f} s more for a broker that is starting"
            output.remark(f"nobody listens at {endpoint} yet; waiting {rest}")
        await asyncio.sleep(LOOK_INTERVAL)
