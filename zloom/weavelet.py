"""zloom's part inside a trainer that has a loop of its own: it lives on a daemon thread."""

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from zloom import leaving
from zloom.bell import Bell
from zloom.engine import Engine
from zloom.errors import DeclarationError, ZloomError
from zloom.mailbox import IN_HANDLER
from zloom.messages import Failure
from zloom.model import Outcome
from zloom.steerable import NEEDED_POLL, Steerable, reason_of
from zloom.stop_signals import in_signal_handler

HAND_OVER = 0.001
"""Seconds that `tick` waits at most until the outcomes of what it has just carried out are sent."""

START_TIMEOUT = 5.0
"""Seconds that `start` waits for the new thread to open its socket, to learn if the endpoint can be used.
On an idle machine that takes milliseconds."""

CONFIG_WAIT = 2.0
"""Seconds that a Trainer's callback waits for the config of its attempt; without a broker the training begins
that much later."""

UNSTEERED = "the training goes on unsteered"


class Weavelet(Steerable):
    """A weavelet for a trainer with a loop of its own::

        with zloom.Weavelet(run="tiny-lm") as weavelet:
            for batch in loader:
                weavelet.tick()
                weavelet.report(loss=train_step(batch))

    Its sockets live on a daemon thread. `tick`, `safe_point` and the declarations belong to the training
    thread, whichever that is; everything else may be called from any thread.
    """

    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _answered = False
    """A handler has answered at this safe point."""
    _late = False
    """The thread had not begun when `start` returned."""
    _closing: str | None = None
    """Why a handler has had it closed, once nothing is under way at this safe point any more."""
    _active = False
    _ended = False
    """The thread has ended: there is nobody who could end a pause, or tell what was decided."""

    def start(self) -> None:
        """Begin to look for the broker; returns at once, whether there is one or not.

        On a machine that is very slow, or has no thread left, it warns and the training goes on.

        Raises:
            SettingsError: It was started before.
            TransportError: The endpoint is malformed, or too few descriptors are left for its sockets.
        """
        if self._is_forked():
            return
        self._check_startable()
        self._arrived, self._activated, self._opened, self._handed_over = Bell(), Bell(), Bell(), Bell()
        self._leaving: asyncio.Future[None] | None = None
        self._reason = ""
        self._start_error: ZloomError | None = None
        self._training.wake = self._arrived.ring
        self._training.activated = self._on_activated
        self._training.failed = self._on_failure
        self._start_thread()
        if self._start_error is not None:
            raise self._start_error

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run_loop, name="zloom-weavelet", daemon=True)
        try:
            leaving.at_exit(self, lambda: self._begin_to_leave(_why_the_process_ends()), self._await_end)
            thread.start()
        except RuntimeError as error:  # the limit on this user's threads, for one
            leaving.forget(self)
            self._warn_once(f"the weavelet's thread could not begin ({error}); {UNSTEERED}")
            return
        self._thread = thread
        if not self._opened.wait(START_TIMEOUT):
            self._late = True
            self._warn_once(
                f"the weavelet's thread has not begun within {START_TIMEOUT:g} s; {UNSTEERED} until it has"
            )

    def close(self, reason: str = "finished") -> None:
        """Say goodbye and end the thread; a second call waits for the end of the first.

        It takes milliseconds, up to 0.3 s where the broker has not answered its first hello, and 2 s at most.

        Rank 0, where its process serves the ranks' store, waits as long for those that have not learnt there
        yet what was decided about the last change. Called from another thread it ends a pause.

        Called by a handler at a safe point, `stop` for one, it returns at once: the weavelet is closed at the
        end of that safe point, when what runs there was answered for. So return, raise or `sys.exit()` behind
        it: nothing is said of a process that `os._exit()` ends there. Called on the weavelet's own thread, as
        by a handler of an immediate change, it returns at once too.

        Args:
            reason: Shown to operators.
        """
        if self._is_forked():
            return
        if self._is_in_handler() and not self._closed:
            self._closing = reason
        else:
            self._begin_to_leave(reason)
            self._await_end(self._settings.close_timeout)

    def _is_in_handler(self) -> bool:
        training = self._training
        in_safe_point = training.serving and training.thread == threading.get_ident()
        # One of a signal may end the process at once, and be above one of this weavelet's that takes long.
        return in_safe_point and not in_signal_handler()

    def _begin_to_leave(self, reason: str) -> None:
        if self._closed or self._forked:
            return
        self._reason, self._closed = reason, True
        if self._thread is not None:
            self._arrived.ring()
            self._activated.ring()
            self._call(self._leave)

    def _await_end(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread() and not self._forked:
            deadline = time.monotonic() + timeout
            self._thread.join(timeout)
            while self._is_needed(deadline):
                time.sleep(NEEDED_POLL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(reason_of(error))

    # --- the training thread ------------------------------------------------------------------

    def tick(self, step: int | None = None) -> None:
        """Begin the next step: a safe point, at which handlers run and a pause holds.

        After handlers it waits, a millisecond at most, until what they answered is sent.

        Args:
            step: Its number, which must increase; by default steps are counted, from 1 on.

        Raises:
            UndoError: A rejected update could not be taken back, so the trainer's state is unknown.
            HoldLimitExceeded: `hold_limit` seconds have passed, or the ranks' store is gone, and it is not
                known what the ranks decided about a change that this one cannot just leave.
            DeclarationError: It was called by a handler.
        """
        training = self._training
        if training.serving:
            raise DeclarationError(IN_HANDLER)
        if step is None:
            training.step += 1
        else:
            self._begin_step(step)
        if self._mailbox.waiting:
            self._hold()

    def begin_step(self) -> bool:
        """Begin the next step, and count it: what `tick` does where nothing is to be done.

        Returns:
            Whether `safe_point` must be called here.
        """
        # In this order: what other ranks are promised holds as a step is told before this one looks.
        training = self._training
        training.step += 1
        return training.mailbox.waiting

    def end_step(self, metrics: dict[str, Any]) -> bool:
        """Report what the step that began last has brought, and look what is to be done behind it.

        Costs less than `report` where a step is short: what it takes is read later, some rows together.

        Args:
            metrics: Numbers, and tensors of one element on the CPU that nobody changes any more, by name. The
                mapping is zloom's from now on.

        Returns:
            Whether `safe_point` must be called here, or `departure` be looked at.
        """
        training, mailbox = self._training, self._mailbox
        if self._forked:
            self._is_forked()
        elif metrics:
            training.metrics.append_unread(training.step, metrics)
        return mailbox.waiting or mailbox.parting.reason != ""

    def safe_point(self, *, trained: bool = False) -> None:
        """Let handlers run here too, without beginning a step. Raises what `tick` does.

        Args:
            trained: The step that began last has been trained, as at the end of a batch: outcomes then name
                the next one as the first with the new values.
        """
        training = self._training
        training.stood = True
        if self._mailbox.waiting:
            training.trained = trained
            try:
                self._hold()
            finally:
                training.trained = False

    def wait_until_active(self, timeout: float) -> bool:
        """Wait until the broker's state is here; `safe_point` then applies it.

        Args:
            timeout: Seconds.

        Returns:
            Whether it came in time.
        """
        if self._thread is None or self._is_forked():
            return False
        self._begin()
        deadline = time.monotonic() + timeout
        while not (self._active or self._closed) and (left := deadline - time.monotonic()) > 0:
            self._activated.wait(left)
        return self._active

    def wait_for_config(self, timeout: float) -> None:
        """Stand at this safe point until the config of an attempt that was steered already is in force here.

        On several ranks it comes in one revision, which all of them apply here if all stand here. Without a
        broker, or without the other ranks, the training goes on after `timeout` seconds. Raises what `tick`
        does.
        """
        deadline = time.monotonic() + timeout
        if not self.wait_until_active(timeout):
            return
        self._mailbox.standing = True
        try:
            while self._serve(now := time.monotonic()) or (self._mailbox.lacks_config and now < deadline):
                if self._mailbox.pause.active or now >= deadline or self._ends:
                    break
                self._arrived.wait(min(self._wait_left(now), deadline - now))
        finally:
            self._mailbox.standing = False
            self._hold_again()
        # What was promised meanwhile is decided before the training goes on, and a pause holds it.
        if self._mailbox.waiting or self._ends:
            self._hold()

    def _hold(self) -> None:
        if self._is_unstarted() or self._is_forked() or self._closed or self._thread is None or self._ended:
            return
        self._begin()
        self._arrived.hush()
        try:
            while self._serve(time.monotonic()) and not (self._closed or self._ended):
                self._arrived.wait(self._wait_left(time.monotonic()))
        finally:
            self._hold_again()
            if self._closing is not None:
                self.close(self._closing)
        if self._answered:
            self._hand_over()

    def _serve(self, now: float) -> bool:
        waits = super()._serve(now)
        if self._closing is None:
            return waits
        self._mailbox.pause.end()  # what the ranks decide is waited for all the same
        return self._mailbox.must_wait

    @property
    def _ends(self) -> bool:
        return self._closed or self._ended or self._closing is not None

    def _answer(self, revision: int, outcome: Outcome) -> None:
        self._answered = True
        super()._answer(revision, outcome)

    def _hand_over(self) -> None:
        """Let the weavelet's thread send what handlers have answered.

        A step in Python keeps the interpreter for 5 ms (`sys.getswitchinterval`), and they would wait for it.
        """
        self._answered = False
        self._handed_over.hush()
        self._post(Engine.send_outcomes)
        self._call(self._handed_over.ring)
        self._handed_over.wait(HAND_OVER)

    # --- the weavelet's thread ----------------------------------------------------------------

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._live())
        except BaseException:
            logging.getLogger("zloom").error("the weavelet's thread has ended; %s", UNSTEERED)
            raise
        finally:
            leaving.forget(self)
            self._ended = True
            self._arrived.ring()
            self._activated.ring()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leaving = self._loop.create_future()
        try:
            if self._closed:  # before this thread began
                return
            self._engine = self._make_engine()
        except ZloomError as error:
            self._start_error = error
            if self._late:  # nobody is there any more to be told
                logging.getLogger("zloom").error("%s; %s", error, UNSTEERED)
            return
        finally:
            self._opened.ring()
        try:
            self._engine.start(declared=self._begun or not self._inherit)
            await self._leaving
            await self._engine.introduce()
        finally:  # also where something ended the loop: with sockets that are open no context can be ended
            try:
                self._engine.close(self._reason or "failed: its weavelet has ended")
            finally:
                self._engine.end()

    def _leave(self) -> None:
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)

    def _on_activated(self, active: bool) -> None:
        self._active = active
        self._activated.ring()

    def _on_failure(self, failure: Failure) -> None:
        # Not here: a handler that waits for the training thread would keep this thread from answering pings.
        threading.Thread(
            target=self._tell_of_failure, args=(failure,), name="zloom-failure", daemon=True
        ).start()

    def _post(self, method: Callable[..., None], *arguments: object) -> None:
        if self._engine is not None:
            self._call(method, self._engine, *arguments)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *arguments)


def _why_the_process_ends() -> str:
    """Return what `close` is to say of a trainer that nobody closed."""
    # Where somebody types, the last exception may be long ago and has ended nothing.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)  # None where it is only imported
    interactive = hasattr(sys, "ps1") or shell() is not None
    uncaught = None if interactive else getattr(sys, "last_value", None)
    return "the process ended" if uncaught is None else reason_of(uncaught)
