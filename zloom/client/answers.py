"""What comes back for one request."""

import asyncio

from zloom.client.requests import Answered
from zloom.errors import Refused, ZloomError
from zloom.messages import Answer, Refusal


class Answers:
    """The answers to one request, in order."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Answered | ZloomError] = asyncio.Queue()

    def put(self, item: Answered | ZloomError) -> None:
        """Take an answer, or why none will come."""
        self._items.put_nowait(item)

    async def next(self) -> Answer:
        """Wait for the next answer.

        Raises:
            Refused: The broker refused the request.
            ZloomError: The connection ended for good.
        """
        item = await self._items.get()
        if isinstance(item, ZloomError):
            raise item
        if isinstance(item.answer, Refusal):
            raise Refused(item.answer.code, item.answer.text)
        return item.answer
