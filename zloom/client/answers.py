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


class Asked:
    """A request, and all who wait for its answers.

    Args:
        body: The request as it is sent, by which another one under the same id is told.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._waiting: list[Answers] = []
        self._newest: Answered | ZloomError | None = None

    def join(self) -> Answers:
        """Wait for the answers; who comes late begins with the newest, which says all that is known."""
        answers = Answers()
        if self._newest is not None:
            answers.put(self._newest)
        self._waiting.append(answers)
        return answers

    def leave(self, answers: Answers) -> bool:
        """Wait no longer; return whether nobody does any more."""
        self._waiting.remove(answers)
        return not self._waiting

    def put(self, item: Answered | ZloomError) -> None:
        """Take an answer for all who wait, or why none will come."""
        self._newest = item
        for answers in self._waiting:
            answers.put(item)
