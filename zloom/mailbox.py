"""What waits for the training thread: revisions on their way from the loop to the next safe point."""

from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from zloom.agreement import Agreement
from zloom.errors import DeclarationError
from zloom.handlers import UNDECLARED, Applied, Registry, Rejected
from zloom.model import Outcome, OutcomeKind, Revision, Value
from zloom.parting import Parting
from zloom.pause import Pause
from zloom.ramps import Number, Ramps
from zloom.restoring import Restore, Restoring
from zloom.rounds import Register, Round
from zloom.schedule import Pending, Schedule
from zloom.settlement import Answer, Settlement
from zloom.words import error_text

SNAPSHOT = "snapshot"
"""The detail of the outcome of a restored config."""

IN_HANDLER = "a handler reached a safe point while it ran in one; do not call tick() inside a handler"

INTERRUPTED = "it was interrupted before it was answered for, and may have been carried out"

Item = Revision | Restore


class Mailbox:
    """Holds revisions until they are due and has the registry carry them out, at a safe point.

    `put` and `pause.end` may be called from any thread, everything else belongs to the training thread. Both
    sides share one deque and one flag: appending and popping are atomic, and the flag is set after the append
    and cleared before the draining, so that no item can be left behind unseen.

    Each outcome goes to `answer` when it is decided, not at the end of the safe point: an operator sees
    what was applied although the next handler takes a minute, and nothing is lost when one raises
    KeyboardInterrupt.

    It brings the commands `pause` and `resume`. It only says that the training is paused, or holds until the
    ranks have decided; waiting, and serving the mailbox meanwhile, is up to its owner.

    A consistent revision comes as a `Round`. From the step on that this rank promised, nothing is carried out
    before it is known whether the ranks agreed, and after an update was, nothing before all have.

    Args:
        registry: Carries revisions out.
        answer: Takes outcomes.
        confirm: Takes the round of an update that was carried out, and the step; the broker is to hear of it.
        warn: Takes a text for the trainer's log.
    """

    def __init__(
        self,
        registry: Registry,
        answer: Answer,
        confirm: Callable[[Round, int], object] = lambda *_: None,
        warn: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.waiting = False
        """Something may be to do at a safe point; an attribute, because each tick reads it."""
        self.standing = False
        """The trainer stands at a safe point by its own wish, as in a pause."""
        self.pause = Pause(registry)
        self.ramps = Ramps(registry, warn)
        self.parting = Parting()
        self._registry = registry
        self._confirm = confirm
        self._agreement = Agreement()
        self._inbox: deque[Item] = deque()
        self._cancels: deque[Revision] = deque()
        """Of what arrived, looked at last: what they cancel may have arrived with them."""
        self._promised: deque[Round] = deque()
        self._schedule = Schedule()
        self._settled = Settlement(answer)
        self._restoring = Restoring(registry)
        self._running = False
        self._begun: int | None = None
        """The revision that was carried out last, until it is answered for."""
        self._stops = False
        """A `stop` was carried out, or all ranks agreed on one."""
        self._step = 0
        self._first = 0
        """The first step that is trained with what is changed now."""
        self._now = 0.0

    def put(self, item: Item) -> None:
        """Have the item seen to at the next safe point. Any thread may call this."""
        self._inbox.append(item)
        self.waiting = True

    def decide_in(self, register: Register | None, hold_limit: float | None) -> None:
        """Have consistent revisions decided in a register that the ranks share.

        Args:
            register: None leaves the decision to the broker.
            hold_limit: Seconds after which a safe point that waits for a decision raises; None waits on.
        """
        self._agreement.register, self._agreement.hold_limit = register, hold_limit
        self.parting.register = register

    @property
    def has_register(self) -> bool:
        """Whether the ranks decide among themselves. Any thread may ask."""
        return self._agreement.register is not None

    @property
    def lacks_config(self) -> bool:
        """Whether this rank trains without values that all ranks must apply together. Any thread may ask."""
        return self._restoring.lacks

    @property
    def holding(self) -> bool:
        """Whether the training waits for what the ranks decide."""
        return self._agreement.holding

    def is_settled(self, revision: int) -> bool:
        """Whether it is known what became of a revision here. Any thread may ask."""
        return revision in self._settled

    def end_of(self, revision: int) -> str:
        """Return what became of a revision, in words. Any thread may ask."""
        return self._settled.end_of(revision)

    def poll(self, now: float) -> float | None:
        """Return the seconds until a training that holds should look again, if it should by itself."""
        return self._agreement.poll(now)

    def promise(self, round: Round) -> None:
        """Have the training wait at the round's step until it is decided. Any thread may call this."""
        self._promised.append(round)
        self.waiting = True

    @property
    def stands(self) -> bool:
        """Whether the training stands at a safe point that serves decisions. Any thread may ask."""
        return self.pause.active or self.standing

    @property
    def must_wait(self) -> bool:
        """Whether the training may not leave this safe point yet.

        A promise that came while the mailbox was run counts too: it was given because the training waited.
        A pause that somebody ended after it was run: what was agreed in it is not known here yet.
        """
        return self._stays or self.parting.meets

    @property
    def _stays(self) -> bool:
        return self.pause.active or self.holding or bool(self._promised)

    def run(self, step: int, now: float, *, trained: bool = False) -> None:
        """Carry out what is due at this safe point.

        Args:
            step: The step that began last; while paused, that step again and again.
            now: Seconds on a monotonic clock.
            trained: It was trained too, so that what is changed here is in force from the next one on. What
                the ranks agreed on for that one waits for its beginning all the same: a rank that promised
                late is not stopped before it.

        Raises:
            DeclarationError: A handler called this, through `tick()` or the like.
            UndoError: A rejected update could not be taken back. It has been answered.
            HoldLimitExceeded: It was not learnt in time what the ranks decided.
        """
        if self._running:
            raise DeclarationError(IN_HANDLER)
        self._running, self._step, self._first, self._now = True, step, step + trained, now
        try:
            self._settled.answer_for_last()
            self._reach(step, now)
            # Before anything else, so that what begins or ends here finds the values of this step.
            self.ramps.advance(self._first)
            self._drain()
            if self._conclude() and self._decide():
                self._agreement.go_on()
                self._end_undone()
                blocked = self._restore()
                self._carry_out_due(blocked)
                if self._stops or self.parting.leaves_alone:
                    self._stops = False
                    self.pause.end()  # or it would stop nothing before somebody resumes
        finally:
            try:
                self._meet()
            finally:
                self._running = False
                if self._has_more():
                    self.waiting = True

    def _reach(self, step: int, now: float) -> None:
        paused = self.pause.active
        if self.pause.reach(step, now):
            self.parting.paused(step)
        elif paused and self.parting.is_over():
            self.pause.end()

    def _meet(self) -> None:
        """Tell the ranks that stand here too of a departure, and learn of theirs before going on."""
        if self._stays:
            self.parting.tell()
        else:
            self.parting.go_on(self._now)

    def _has_more(self) -> bool:
        """Whether the next safe point has something to do, though nothing arrives."""
        waits = self._schedule or self._agreement or self._restoring
        # An exception, Ctrl-C for one, may have left something of what arrived.
        left = self._promised or self._inbox or self._cancels or self._settled.lacks_answer
        return bool(waits or self.pause.coming or self.ramps or left)

    # --- what arrived -------------------------------------------------------------------------------

    def _drain(self) -> None:
        self.waiting = False
        # Each is taken before it is removed: to take one twice does no harm, and none may be lost.
        while self._promised:
            self._agreement.take(self._promised[0])
            self._promised.popleft()
        while self._inbox:
            item = self._inbox[0]
            if isinstance(item, Restore):
                self._take_restore(item)
            else:
                self._take(item)
            self._inbox.popleft()
        while self._cancels:
            self._cancel(self._cancels[0])
            self._cancels.popleft()

    def _take(self, revision: Revision) -> None:
        if revision.kind == "cancel":
            self._cancels.append(revision)
        elif revision.revision not in self._settled:
            at_step = revision.at_step if revision.mode == "at_step" else None
            self._enter(Pending(revision, max(self._step, at_step or 0)))

    def _enter(self, pending: Pending) -> None:
        for number in pending.revision.supersedes:
            self._end_waiting(number, "superseded", f"by revision {pending.revision.revision}")
        self._schedule.add(pending)

    def _cancel(self, cancel: Revision) -> None:
        number = cancel.cancels
        if cancel.revision in self._settled:
            return
        if self._end_waiting(number, "cancelled"):
            self._settle(cancel.revision, "applied", chain=cancel.chain)
        elif values := self.ramps.stop(number):
            self._settle(cancel.revision, "applied", chain=cancel.chain, values=values)
        else:
            end = self.end_of(number)
            self._settle(cancel.revision, "rejected", f"revision {number} {end}", chain=cancel.chain)

    def _end_waiting(self, number: int, kind: OutcomeKind, error: str = "") -> bool:
        """End a revision that waits for its step or its place; return whether it did."""
        round = None if number in self._schedule else self._agreement.drop(number)
        if round is not None and number not in self._settled:
            self._settle(number, kind, error, chain=round.revision.chain)
            return True
        if number in self._schedule:
            self._settle(number, kind, error)
            return True
        return False

    def _take_restore(self, restore: Restore) -> None:
        if restore.rolled_back:
            # The broker's history replaces this side's: the same numbers mean other revisions there.
            self._schedule.clear()
            self._settled.forget()
            self._agreement.forget(restore.epoch, restore.rounds)
            self._cancels.clear()
            self.ramps.forget()
        for revision in restore.pending:
            if (
                outcome := self._settled.earlier(revision)
            ) is not None:  # the history that is gone had it too
                self._settled.end(revision.revision, outcome)
            else:
                self._take(revision)
        self._restoring.take(restore)

    # --- a snapshot's values ------------------------------------------------------------------------

    def _restore(self) -> set[str]:
        """Apply the held values that can be; return the keys for which revisions must wait."""
        if not self._restoring:
            return set()
        changes = self._restoring.changes()
        ready, error = self._ask(lambda: self._registry.are_keys_ready(changes))
        if not ready and not error:
            return set(changes)
        # Values that hold already are answered for too: somebody may wait for this replica's outcome.
        if self._restoring.done() or changes:
            self._change(self._restoring.revision, lambda: self._apply_snapshot(changes, error))
        return set()

    def _apply_snapshot(self, changes: dict[str, Value], error: str) -> Applied | Rejected:
        result = Rejected(error) if error else self._registry.apply(changes) if changes else Applied()
        if isinstance(result, Applied):
            self.ramps.forget(changes)
        return Applied(SNAPSHOT) if isinstance(result, Applied) else result

    # --- what the ranks decide ----------------------------------------------------------------------

    def _decide(self) -> bool:
        """Learn what was decided about rounds whose step has come; return whether the training may go on."""
        for round in list(self._agreement.reached(self._step)):
            number = round.revision.revision
            moot = round.forgotten or number in self._settled
            commit = self._agreement.decision(round, self._now, refused=moot)
            if commit is None:
                return False
            if commit:
                self.parting.decided(round.name)
                # On all ranks, whatever becomes of it on each: one that stayed would have the others wait.
                self._stops |= round.revision.command == "stop"
            if commit and round.forgotten:
                self._agreement.failed(round, self._step, "its history was replaced")
            if moot:
                continue
            if commit and round.revision.kind == "cancel":
                self._cancel(round.revision)
            elif commit:
                self._enter(Pending(round.revision, round.step, round))
            elif round.commit is not False:  # not the broker's word, so it must hear of it
                self._settle(number, "aborted", round.reason, chain=round.revision.chain)
        return True

    def _carry_out_together(self, round: Round) -> None:
        try:
            result = self.ramps.apply(self._lacking(round.revision), self._first)
        except BaseException as error:
            self._reject(round, error_text(error))
            raise
        if isinstance(result, Rejected) and result.error != UNDECLARED:
            self._reject(round, result.error)
            return
        # A rank that declares none of the keys has nothing to change, and confirms like the others.
        applied = result if isinstance(result, Applied) else Applied()
        self._agreement.carried_out(round, self._first, applied.undo, applied.detail)
        self._confirm(round, self._first)
        self._conclude()

    def _lacking(self, revision: Revision) -> Revision:
        """Return a revision that brings newcomers the config without what holds here already."""
        if not revision.restores:
            return revision
        return replace(revision, changes=self._registry.differing(revision.changes))

    def _reject(self, round: Round, error: str) -> None:
        self._agreement.failed(round, self._step, error)
        self._settle(round.revision.revision, "rejected", error)

    def _conclude(self) -> bool:
        """Learn how the update ends that was carried out; return whether the training may go on."""
        done = self._agreement.done
        if done is None:
            return True
        self.parting.tell()  # before it is noted here that the update was carried out, which others wait for
        end = self._agreement.end(self._now)
        if end is None:
            return False
        if end.keep:
            self.parting.concluded(done.round.name)
            self._end_round(done.round, "applied", detail=done.detail, step=done.step)
            return True
        try:
            done.undo()
        except BaseException as error:
            self._end_round(done.round, "aborted", f"{end.reason}; undoing it failed: {error}")
            raise
        self._end_round(done.round, "aborted", end.reason)
        return True

    def _end_round(
        self, round: Round, kind: OutcomeKind, error: str = "", detail: str = "", step: int | None = None
    ) -> None:
        """Answer for an update that was carried out here, unless it is of a history that was replaced."""
        if round.forgotten:
            return
        if kind == "applied":
            self._restoring.note(round.revision.changes)
        self._settle(round.revision.revision, kind, error, detail, chain=round.revision.chain, step=step)

    def _end_undone(self) -> None:
        """End updates that wait for their place here, and of which no rank can keep any more."""
        for pending in self._schedule:
            round = pending.round
            end = round.end if round is not None and round.revision.kind == "config" else None
            if round is not None and end is not None and not end.keep:
                self._agreement.failed(round, self._step, end.reason)
                self._settle(round.revision.revision, "aborted", end.reason)

    # --- what is due --------------------------------------------------------------------------------

    def _carry_out_due(self, blocked: set[str]) -> None:
        for number in self._schedule.due(self._step, self._first, self._agreement.promised()):
            pending = self._schedule[number]
            if number in self._settled:  # an exception came between that and its end here
                self._schedule.end(number)
            elif not blocked.isdisjoint(pending.names) or not self._try(pending):
                blocked.update(pending.names)
            if self.holding:
                return

    def _try(self, pending: Pending) -> bool:
        revision = pending.revision
        ready, error = self._ask(lambda: self._registry.is_ready(revision))
        if error and pending.round is not None and revision.kind == "config":
            self._reject(pending.round, error)
        elif error:
            self._settle(revision.revision, "rejected", error)
        elif ready:
            self._carry_out(pending)
        return ready or bool(error)

    def _ask(self, ready: Callable[[], bool]) -> tuple[bool, str]:
        try:
            return bool(ready()), ""
        except Exception as error:  # noqa: BLE001 - a user's predicate may raise anything
            self._registry.tell_of("a `ready` of this trainer", error)
            return False, f"ready: {error_text(error)}"

    def _carry_out(self, pending: Pending) -> None:
        revision = pending.revision
        if revision.kind == "command":
            run = self._registry.run
            applied = self._perform(revision.revision, lambda: run(revision.command, revision.arguments))
            self._stops |= applied and revision.command == "stop"
            # A signal may have ended the pause on this rank already: the others wait in it to hear of that.
            if applied and revision.command == "pause" and pending.round is not None:
                self.parting.paused(self._step, pending.round.name)
        elif pending.round is not None:
            self._carry_out_together(pending.round)
        else:
            self._restoring.note(revision.changes)
            self._change(revision.revision, lambda: self.ramps.apply(revision, self._first))

    def _change(self, number: int, action: Callable[[], Applied | Rejected]) -> None:
        """Change values, and answer for the first step that is trained with them."""
        self._perform(number, action, self._first)

    def _perform(
        self, number: int, action: Callable[[], Applied | Rejected], step: int | None = None
    ) -> bool:
        """Carry a revision out, once, and answer for it; return whether it was applied."""
        if number == self._begun and number not in self._settled:  # an exception, Ctrl-C for one, came there
            self._settle(number, "rejected", INTERRUPTED, step=step)
            return False
        self._begun = number
        try:
            result = action()
        except BaseException as error:
            self._settle(number, "rejected", error_text(error), step=step)
            raise
        if isinstance(result, Applied):
            self._settle(number, "applied", detail=result.detail, step=step)
        else:
            self._settle(number, "rejected", result.error, step=step)
        self._begun = None
        return isinstance(result, Applied)

    def _settle(
        self,
        number: int,
        kind: OutcomeKind,
        error: str = "",
        detail: str = "",
        chain: bytes = b"",
        step: int | None = None,
        values: dict[str, Number] | None = None,
    ) -> None:
        if step is None and kind in ("applied", "rejected"):
            step = self._step
        waited = self._schedule[number].revision if number in self._schedule else None
        chain = waited.chain if waited is not None else chain
        outcome = Outcome(
            "", outcome=kind, step=step, error=error, detail=detail, values=values or {}, chain=chain
        )
        self._settled.end(number, outcome, waited)
        self._schedule.end(number)
