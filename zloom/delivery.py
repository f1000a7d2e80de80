"""What the loop hands to the trainer: revisions, restored state, and payloads of own topics."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from zloom.errors import UndoError
from zloom.handlers import Applied, Rejected
from zloom.messages import Own
from zloom.model import Outcome, Revision
from zloom.restoring import Restore
from zloom.training import Training
from zloom.words import error_text


class Delivery:
    """Belongs to the loop's thread.

    Args:
        training: Whom it is for.
        answer: Takes the outcome of what is applied here and now.
        together: Whether it is one of several ranks, so that a snapshot's values are for all at one step.
    """

    def __init__(
        self, training: Training, answer: Callable[[int, Outcome], None], *, together: bool = False
    ) -> None:
        self._training = training
        self._answer = answer
        self._together = together

    def put(self, item: Revision | Restore) -> None:
        """Leave it for the next safe point, and wake a trainer that is paused."""
        self._training.mailbox.put(item)
        self._training.wake()

    def restore(self, restore: Restore) -> None:
        """Leave a snapshot for the next safe point, if it says anything."""
        # Consistent ones come in their rounds, and are not answered for here either.
        pending = [each for each in restore.pending if each.mode != "consistent"]
        restore = replace(restore, revision=restore.answered, pending=pending, together=self._together)
        if restore.config or restore.pending or restore.rolled_back:
            self.put(restore)

    def deliver(self, revision: Revision) -> None:
        """Leave a revision for the next safe point, or apply it now if it is an immediate one.

        Behind anything that waits for a safe point an immediate update waits too, to keep the order. A
        consistent one comes in its rounds.
        """
        if revision.mode == "consistent":
            return
        if self._training.is_quiet and self._training.registry.is_immediate(revision):
            self._answer(revision.revision, self._apply(revision))
        else:
            self.put(revision)

    def hand(self, own: Own) -> None:
        """Hand over a payload; what a subscriber raises is logged."""
        for prefix, handler in self._training.subscribers:
            if own.topic.startswith(prefix):
                try:
                    handler(own.topic, own.payload, own.sender)
                except BaseException as error:  # a user's handler may raise anything
                    if _ends_the_program(error):
                        raise
                    logging.getLogger("zloom").exception("a subscriber of %s raised", prefix)

    def _apply(self, revision: Revision) -> Outcome:
        training = self._training
        try:
            result = training.registry.apply(revision.changes)
        except UndoError as error:
            result = Rejected(f"UndoError: {error}")
            training.broken = error
            training.mailbox.waiting = True
            training.wake()
        except BaseException as error:
            result = Rejected(error_text(error))
            if _ends_the_program(error):
                self._answer(revision.revision, self._outcome(revision, result))
                raise
            training.registry.tell_of(f"the handler of revision {revision.revision}", error)
        return self._outcome(revision, result)

    def _outcome(self, revision: Revision, result: Applied | Rejected) -> Outcome:
        step, chain = self._training.step, revision.chain
        if isinstance(result, Rejected):
            return Outcome("", outcome="rejected", step=step, error=result.error, chain=chain)
        return Outcome("", outcome="applied", step=step, chain=chain)


def _ends_the_program(error: BaseException) -> bool:
    """Whether an error is for the main thread, which SystemExit and KeyboardInterrupt end with the program.

    On another they would end only what answers the broker, and the training would go on unsteered. Others,
    asyncio.CancelledError for one, end no program: a loop takes them for those of the callback alone.
    """
    ends = isinstance(error, SystemExit | KeyboardInterrupt)
    return ends and threading.current_thread() is threading.main_thread()
