"""The base of an operator's calls: its connection, and how long it waits for answers."""

from typing import TypeVar

from zloom.client.link import OperatorLink
from zloom.errors import RemoteProtocolError
from zloom.messages import FromOperator

A = TypeVar("A")


class Caller:
    """Makes requests over a link.

    Args:
        link: The connection.
        timeout: Seconds that a call waits unless it says otherwise.
    """

    def __init__(self, link: OperatorLink, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def _ask(self, request: FromOperator, kind: type[A]) -> A:
        return expect(await self._link.ask(request, self._timeout), kind)


def expect(answer: object, kind: type[A]) -> A:
    """Return an answer that is of the type that its request calls for.

    Raises:
        RemoteProtocolError: It is not.
    """
    if not isinstance(answer, kind):
        raise RemoteProtocolError(f"the broker answered {type(answer).__name__}; {kind.__name__} was due")
    return answer
