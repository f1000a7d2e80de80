"""From a command to the broker and back: connects, says what came of it, and sets the exit code."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

import typer

from zloom.cli import choosing, contact, exits, listeners, output, pending, report, shapes
from zloom.cli.exits import ExitCode
from zloom.cli.options import Change, Target
from zloom.client import Operator, Result, Silence, connect
from zloom.errors import Refused, ZloomError
from zloom.messages import Keys, Preview
from zloom.model import HistoryEntry, ReplicaStatus, RunStatus
from zloom.settings import ClientSettings, resolve_broker

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
"""Seconds until a broker that does not answer counts as not there, unless `--timeout` is shorter."""

WONDER_AFTER = 2.0
"""Seconds until a wait for outcomes is explained."""

LOOK_BACK = 100
"""Revisions among which are those that a change waits behind: one answer of the broker."""


class Progress:
    """The newest that is known of a change while it is waited for; `attempt` as it was named, or empty."""

    def __init__(self, attempt: str = "") -> None:
        self.result: Result | None = None
        self.note: Callable[[Result], str] = lambda _: ""
        """Returns what is to be known beside an answer, for stderr; empty where nothing is."""
        self.endpoint = ""
        """Of the broker, once it was reached."""
        self.silence: float | None = None
        """For how many seconds the broker had not answered at the end of the wait; None where it did."""
        self.cancels = 0
        """The revision that is taken back, which cannot be taken back itself; 0 for none."""
        self.attempts: Sequence[RunStatus] = ()
        """Of the run, the newest last, where none was named: so that the answer says which was taken."""
        self._attempt = attempt
        self._keys: Keys | None = None
        self._entries: list[HistoryEntry] = []
        self._replicas: list[ReplicaStatus] = []
        self._explained = False

    def __call__(self, result: Result) -> None:
        if self.result is None:
            _say_chosen(result.attempt, self.attempts)
        self.result = result

    async def look(self, operator: Operator) -> None:
        """Ask what a change without an answer may wait for; a broker that is gone tells nothing."""
        if self.result is None or self.result.settled or self._explained or operator.silent_for is not None:
            return
        run, attempt = self.result.run, self.result.attempt
        with contextlib.suppress(ZloomError):
            self._entries = await operator.history(run, LOOK_BACK, attempt=attempt)
            self._keys = await operator.keys(run, attempt=attempt)
            self._replicas = await operator.replicas(run, attempt=attempt)

    def explain(self) -> None:
        """Say once why there is no answer yet."""
        if not self._explained and self.result is not None:
            self._explained = True
            why = pending.why(self.result, self._keys, self._entries, self._attempt, self._replicas)
            for line in why:
                output.remark(line)

    async def explain_later(self, operator: Operator) -> None:
        """Say it when the wait has become long enough to wonder."""
        await asyncio.sleep(WONDER_AFTER)
        await self.look(operator)
        if self.result is not None and not self.result.settled and operator.silent_for is None:
            self.explain()

    def tell(self, silence: Silence) -> None:
        """Say that the broker fell silent during the wait, or that it answers again."""
        if silence.over:
            output.remark(contact.back(self.endpoint, silence))
        elif self.result is None:
            output.remark(f"{contact.fallen_silent(self.endpoint, silence.seconds)}; it is asked again")
        else:
            output.remark(contact.unheard(self.result, self.endpoint, silence.seconds))


Steering = Callable[[Operator, Progress], Awaitable[Result]]
Previewing = Callable[[Operator], Awaitable[Preview]]


def ask(target: Target, work: Callable[[Operator], Awaitable[T]]) -> T:
    """Connect, do the work, and return what it returned; an error ends the command."""
    with exits.reported(as_json=target.as_json):
        return run(connected(target, work))


def run(work: Coroutine[None, None, T]) -> T:
    """Return what a coroutine returned.

    Ctrl-C ends it, whole: another one while it closes its sockets, or while it is said what it leaves, would
    leave its user without that word.

    Raises:
        KeyboardInterrupt: It was ended by Ctrl-C, which is ignored from then on.
    """
    interrupted = False

    async def main() -> T:
        task = asyncio.current_task()

        def interrupt() -> None:
            nonlocal interrupted
            if task is not None and not interrupted:
                task.cancel()
            interrupted = True

        heard = threading.current_thread() is threading.main_thread()
        if heard and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt from None


async def connected(target: Target, work: Callable[[Operator], Awaitable[T]]) -> T:
    """Connect, do the work, and return what it returned.

    Raises:
        BrokerUnreachable: None answered, on this host nobody listens, or the other is unknown here.
    """
    patience = min(CONNECT_TIMEOUT, target.timeout)
    endpoint = resolve_broker(target.broker, os.environ)
    await listeners.look(endpoint, patience)
    settings = ClientSettings(timeout=target.timeout, connect_timeout=patience)
    async with connect(target.broker, settings=settings) as operator:
        return await work(operator)


async def keys_of(operator: Operator, run: str, attempt: str) -> Keys:
    """Return the keys of an attempt, and say which that is where another may have been meant.

    Args:
        operator: Asks.
        run: Which run.
        attempt: As it was named to the command; empty where it was not.

    Raises:
        Refused: There is no such run or attempt.
    """
    found = await operator.keys(run, attempt=attempt)
    if not attempt:
        _say_chosen(found.attempt, await operator.runs(run))
    return found


def steer(change: Change, work: Steering) -> None:
    """Make a change, say what became of it, and exit with its code; Ctrl-C says whether it is coming."""
    progress = Progress(change.attempt)
    try:
        result = ask(change.target, lambda operator: _steered(operator, change, work, progress))
    except KeyboardInterrupt:
        _say_interrupted(change, progress)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _say(change, result, progress)
    if note := progress.note(result):
        output.remark(note)
    if change.wait and not result.settled and not change.target.as_json:
        if progress.silence is None:
            progress.explain()
        output.remark(_coming(change, result, progress, can_cancel=not change.cancel_on_timeout))
    raise typer.Exit(exits.of_result(result))


def preview(change: Change, work: Previewing, guard: str = "") -> None:
    """Say what would come of a change, and exit with 0 if it would be accepted, else as if refused."""

    async def previewed(operator: Operator) -> Preview:
        found = await work(operator)
        if not change.attempt:
            _say_chosen(found.attempt, await operator.runs(change.run))
        return found

    found = ask(change.target, previewed)
    if change.target.as_json:
        output.say_json(shapes.of_preview(found))
    else:
        for line in report.preview_lines(found, guard):
            output.say(line)
    raise typer.Exit(ExitCode.REFUSED if found.problems else ExitCode.DONE)


async def _steered(operator: Operator, change: Change, work: Steering, progress: Progress) -> Result:
    if not change.attempt:
        progress.attempts = await operator.runs(change.run)
    progress.endpoint = operator.endpoint
    try:
        if change.target.as_json or not change.wait:
            return await work(operator, progress)
        operator.on_silence(progress.tell)
        return await _explained(operator, work, progress)
    except Refused as error:
        attempts = progress.attempts
        if progress.result is None and (note := choosing.note(choosing.chosen(attempts), attempts)):
            error.add_note(note)
        raise
    finally:
        progress.silence = operator.silent_for


async def _explained(operator: Operator, work: Steering, progress: Progress) -> Result:
    explaining = asyncio.create_task(progress.explain_later(operator))
    try:
        result = await work(operator, progress)
        await progress.look(operator)
        return result
    finally:
        explaining.cancel()


def _say_chosen(attempt: str, attempts: Sequence[RunStatus]) -> None:
    if note := choosing.note(attempt, attempts):
        output.remark(note)


def _say(change: Change, result: Result, progress: Progress) -> None:
    if change.target.as_json:
        output.say_json(shapes.of_result(result))
        return
    if result.checkpoint is not None:
        for line in report.result_lines(result.checkpoint, waited=True, what="checkpoint"):
            output.say(line)
    silent = progress.silence is not None
    first, *others = report.result_lines(result, waited=change.wait, cancels=progress.cancels, silent=silent)
    output.say(first)
    for line in others:
        output.say(line)


def _say_interrupted(change: Change, progress: Progress) -> None:
    result = progress.result
    if result is None:
        text = "interrupted before the broker answered: whether the change is coming is unknown"
        output.complain(f"{text}; {contact.told_later(change.run, change.attempt)}")
        return
    _say(change, result, progress)
    if not result.settled:
        output.complain(f"interrupted: {_coming(change, result, progress)}")


def _coming(change: Change, result: Result, progress: Progress, *, can_cancel: bool = True) -> str:
    if progress.silence is None:
        can_cancel = can_cancel and not progress.cancels
        return report.still_coming(result, change.attempt, can_cancel=can_cancel)
    unheard = contact.unheard(result, progress.endpoint, progress.silence)
    kept = "; it was not taken back" if change.cancel_on_timeout and not can_cancel else ""
    return f"{unheard}{kept}; {contact.told_later(change.run, change.attempt)}"
