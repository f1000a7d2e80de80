"""The training thread's part in changing all ranks at one step: it holds, asks the register, obeys. Pure."""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from zloom.errors import HoldLimitExceeded
from zloom.rounds import End, Register, Round

DECISION_TIMEOUT = 5.0
"""Seconds that a rank holds without a word of the broker before it decides against the revision in the ranks'
store. A broker that is there answers within milliseconds, and a promise without an answer is repeated each
second."""

CONCLUSION_TIMEOUT = 60.0
"""Seconds that a rank which has carried an update out waits for the others before all undo it. As long as the
slowest handler may take: some load data or compile."""

STORE_TIMEOUT = 5.0
"""Seconds without an answer of the ranks' store until a rank that holds counts it as gone: the process that
served it has ended, or hangs."""

SILENT = f"the store of the job's ranks has not answered for {STORE_TIMEOUT:g} s, as when rank 0 has ended"

MIN_POLL, MAX_POLL = 0.001, 0.1
"""Seconds between two looks into the ranks' store: short at first, then an eighth of the time held, so that a
thousand waiting ranks do not wear down the one that serves the store."""

LOST_POLL = 0.5
"""Seconds between two of them where it does not answer: torch writes a page to the log about each."""


@dataclass(slots=True)
class _Done:
    """An update that was carried out here and may have to be undone."""

    round: Round
    step: int
    undo: Callable[[], None]
    detail: str


class Agreement:
    """Rounds of one rank, from the promise until it is known that all ranks keep the update or none does.

    With a `register` the ranks decide there and the broker's word is a proposal; without one the broker's is
    the decision. Everything here belongs to the training thread.
    """

    def __init__(self) -> None:
        self.register: Register | None = None
        self.hold_limit: float | None = None
        """Seconds after which a hold raises; None waits without limit."""
        self.done: _Done | None = None
        """What was carried out and is not concluded."""
        self.holding = False
        """Whether the training must wait."""
        self._rounds: dict[int, Round] = {}
        self._held: Round | None = None
        """What is waited for, or was waited for last."""
        self._since = 0.0
        """Since when."""
        self._unreachable_since: float | None = None
        """Since when the register has not answered this hold."""

    def __bool__(self) -> bool:
        """Whether anything is promised or not concluded."""
        return bool(self._rounds) or self.done is not None

    def go_on(self) -> None:
        """Nothing is to be waited for; what was may have come to nothing, or been moved to a later step."""
        self.holding = False

    def poll(self, now: float) -> float | None:
        """Return the seconds until the register should be asked again; None where there is none."""
        if self.register is None or not self.holding:
            return None
        if not self.register.reachable:
            return LOST_POLL
        return min(MAX_POLL, max(MIN_POLL, (now - self._since) / 8))

    def take(self, round: Round) -> None:
        """Keep a round that was promised; it ends the earlier rounds of its revision."""
        self._rounds[round.revision.revision] = round

    def drop(self, revision: int) -> Round | None:
        """Have a round never carried out, because all ranks end its revision before its step; return it."""
        return self._rounds.pop(revision, None)

    def forget(self, epoch: str, kept: Container[bytes]) -> None:
        """The broker's history was replaced: what it lacks is for no rank, and nobody asks what became of it.

        Args:
            epoch: Of the broker that has the new history: its own rounds are of that.
            kept: Digests of the revisions that the new history has too.
        """
        for round in [*self._rounds.values(), *([self.done.round] if self.done is not None else [])]:
            if round.epoch != epoch and round.revision.chain not in kept:
                round.forgotten = True
                round.end = round.end or End(False, "the broker's history was replaced")

    def promised(self) -> list[Round]:
        """Return the rounds that may still be carried out, in order of their revisions."""
        rounds = sorted(self._rounds.values(), key=lambda round: round.revision.revision)
        return [round for round in rounds if not round.void and round.commit is not False]

    # --- decide -------------------------------------------------------------------------------

    def reached(self, step: int) -> Iterator[Round]:
        """Yield the rounds whose step has come, to be decided."""
        for round in sorted(self._rounds.values(), key=lambda round: round.revision.revision):
            if round.void:
                del self._rounds[round.revision.revision]
            elif round.step <= step:
                yield round

    def decision(self, round: Round, now: float, *, refused: bool = False) -> bool | None:
        """Return what was decided about a round; None when the training must wait for that.

        Args:
            round: Its step has come.
            now: Seconds.
            refused: This rank has answered for the revision already, so no rank may carry it out.

        Raises:
            HoldLimitExceeded: It has waited for too long.
        """
        told = False if refused else round.commit
        # Another rank has carried the command out, so that is what stands in the register, be that silent.
        stands = not (refused or round.revision.kind == "config") and round.end is not None and round.end.keep
        if stands:
            told = True
        elif told is not False and round.end is not None and not round.end.keep:
            told, round.reason = False, round.end.reason  # a rank was lost before this one's step came
        shares = self.register is not None
        overdue = shares and told is None and self._held_for(round, now) >= DECISION_TIMEOUT
        commit = self._ask(round, told, overdue=overdue) if shares else told
        if commit is None and stands:
            commit = True
        # All keep an update only if all carried it out, so one may leave it. A command nobody undoes.
        leaves = round.revision.kind == "config" or refused
        if commit is None and leaves and (told is False or overdue):
            commit = False  # the register is silent
        if commit is None:
            self._hold(round, now)
            if not self._is_gone(now):
                return None
            if not leaves and told is not False:
                raise _gone(round)
            commit, round.reason = False, round.reason or SILENT
        self.holding, self._held = False, None
        self._rounds.pop(round.revision.revision, None)
        return commit

    def _ask(self, round: Round, view: bool | None, *, overdue: bool) -> bool | None:
        if overdue:
            view, round.reason = False, f"the broker's decision did not come within {DECISION_TIMEOUT:g} s"
        if view is None or self.register is None:
            return None
        commit = self.register.decide(round.name, view)
        if commit is False and view:
            round.reason = "another rank had not heard the broker's decision in time"
        return commit

    # --- conclude -----------------------------------------------------------------------------

    def carried_out(self, round: Round, step: int, undo: Callable[[], None], detail: str = "") -> None:
        """An update was carried out here; `detail` is what operators are told if all keep it."""
        round.carried_out = True
        self.done = _Done(round, step, undo, detail)

    def failed(self, round: Round, step: int, error: str) -> None:
        """An update could not be carried out here, so no rank may keep it."""
        if self.register is not None:
            self.register.conclude(round.name, step, End(False, error))

    def end(self, now: float) -> End | None:
        """Return how the update ends that was carried out; None when the training must wait for that.

        Raises:
            HoldLimitExceeded: It has waited for too long.
        """
        done = self.done
        if done is None:
            raise AssertionError("nothing was carried out")
        end = done.round.end
        if self.register is not None:
            view = end if end is not None and not end.keep else None
            if view is None and self._held_for(done.round, now) >= CONCLUSION_TIMEOUT:
                view = End(False, f"not all ranks had applied it after {CONCLUSION_TIMEOUT:g} s")
            end = self.register.conclude(done.round.name, done.step, view)
        if end is None:
            self._hold(done.round, now)
            if self._is_gone(now):
                raise _gone(done.round)
        else:
            self.done = self._held = None
            self.holding = False
        return end

    # --- hold ---------------------------------------------------------------------------------

    def _held_for(self, round: Round, now: float) -> float:
        return now - self._since if self._held is round else 0.0

    def _hold(self, round: Round, now: float) -> None:
        if self._held is not round:
            self._held, self._since, self._unreachable_since = round, now, None
        self.holding = True
        if self.register is None or self.register.reachable:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = now
        if self.hold_limit is not None and now - self._since > self.hold_limit:
            raise HoldLimitExceeded(
                f"step {round.step} was held for {self.hold_limit:g} s, and it is still not known whether "
                f"all ranks apply revision {round.revision.revision}; going on could split them"
            )

    def _is_gone(self, now: float) -> bool:
        since = self._unreachable_since
        return since is not None and now - since >= STORE_TIMEOUT


def _gone(round: Round) -> HoldLimitExceeded:
    return HoldLimitExceeded(
        f"{SILENT}, and it is still not known whether all ranks apply revision {round.revision.revision}; "
        "going on could split them"
    )
