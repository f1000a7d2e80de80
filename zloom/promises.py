"""The loop's part in changing all ranks at one step: it promises, and passes on the broker's word. Pure."""

from collections.abc import Callable

from zloom.handlers import UNDECLARED
from zloom.mailbox import Mailbox
from zloom.messages import Conclusion, Decision, Prepare, Promise
from zloom.rounds import End, Round


class Promises:
    """Answers `Prepare` without waiting for the training thread, however long its steps take.

    A promise holds because both threads write before they read: this one leaves the round in the mailbox,
    then reads the step; the training thread writes its step, then looks into the mailbox. So either the step
    is seen here to have come too far, or the round is seen there.

    Belongs to the loop's thread.

    Args:
        mailbox: Says whether a revision could be carried out; rounds are left there for the training thread.
        step: Returns the step that the training thread began last.
    """

    def __init__(self, mailbox: Mailbox, step: Callable[[], int]) -> None:
        self._mailbox = mailbox
        self._step = step
        self._rounds: dict[int, Round] = {}
        self._replaced: list[Round] = []
        """Of earlier lives of the broker, which the training thread may be carrying out just now."""

    def prepare(self, prepare: Prepare) -> Promise:
        """Promise, if it is not too late and nothing stands against the revision."""
        known = self._rounds.get(prepare.revision.revision)
        if known is not None and (known.epoch, known.number) == (prepare.epoch, prepare.round):
            return self._answer(known, promised=not known.void)
        round = Round(prepare.epoch, prepare.round, prepare.revision, prepare.step)
        if known is not None and known.epoch == prepare.epoch and known.number > prepare.round:
            return self._answer(round, promised=False)  # it comes late, and its end was taken for granted
        if known is not None and known.carried_out:
            return self._answer(round, promised=False)  # that must have ended before there can be another
        refused = self._objection(prepare)
        if refused:
            return self._answer(round, promised=False, refused=refused)
        if known is not None and known.epoch != prepare.epoch:
            self._replaced.append(known)
        self._rounds[prepare.revision.revision] = round
        return self._answer(round, promised=self._bind(round))

    def decided(self, decision: Decision) -> None:
        """The broker tells what became of a round."""
        round = self._find(decision)
        if round is not None:
            round.reason, round.commit = decision.reason, decision.commit
            if not decision.commit:
                del self._rounds[decision.revision]

    def concluded(self, conclusion: Conclusion) -> None:
        """The broker tells how an update ends; before its step has come that is a decision against it."""
        end = End(conclusion.keep, conclusion.reason)
        round = self._find(conclusion)
        if round is not None:
            round.end = end
        for each in self._replaced:
            if each.name == f"{conclusion.epoch}/{conclusion.revision}/{conclusion.round}":
                each.end = end

    def answered(self, revision: int, chain: bytes = b"") -> None:
        """It is known what became of the revision here; its digest, if known, tells it from a namesake."""
        round = self._rounds.get(revision)
        if round is not None and chain in (b"", round.revision.chain):
            del self._rounds[revision]
        self._replaced = [each for each in self._replaced if each.revision.revision != revision]

    def _find(self, said: Decision | Conclusion) -> Round | None:
        round = self._rounds.get(said.revision)
        same = round is not None and (round.epoch, round.number) == (said.epoch, said.round)
        return round if same else None

    def _objection(self, prepare: Prepare) -> str:
        revision = prepare.revision
        if self._mailbox.is_settled(revision.revision):
            return f"revision {revision.revision} {self._mailbox.end_of(revision.revision)} here"
        error = self._mailbox.ramps.check(revision) if revision.kind == "config" else None
        return "" if error in (None, UNDECLARED) else str(error)

    def _bind(self, round: Round) -> bool:
        """Leave the round for the training thread, and find out whether that will see it in time."""
        asked, stands = round.step, self._mailbox.stands
        stood_at = self._step() if stands else 0
        if stands:
            # A pause serves decisions, and does not end before this one is known. What is for a later step
            # waits for that, but needs no lead over a training that stands. Written before the round is left:
            # a training thread that had looked at the other step already might end the pause all the same.
            round.step = max(stood_at, round.revision.at_step or 0)
        self._mailbox.promise(round)
        if stands and self._mailbox.stands and self._step() == stood_at:
            return True
        round.step = asked
        if self._step() < asked:
            return True
        round.void = True
        return False

    def _answer(self, round: Round, *, promised: bool, refused: str = "") -> Promise:
        return Promise(
            epoch=round.epoch,
            revision=round.revision.revision,
            round=round.number,
            step=round.step if promised else self._step(),
            promised=promised,
            store=self._mailbox.has_register,
            refused=refused,
        )
