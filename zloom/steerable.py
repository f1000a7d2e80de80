"""What a trainer says to its weavelet, whichever loop that runs on."""

import asyncio
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import index
from typing import Any, get_args

from zloom.declaring import Declaring
from zloom.devices import DeviceProbe
from zloom.engine import Engine, WeaveletCounters
from zloom.errors import SettingsError
from zloom.forks import Disownable
from zloom.handlers import Registry
from zloom.launch import (
    agent_serves_store,
    check_name,
    incarnation,
    initialised_group,
    lacks_store,
    remote_master,
    resolve_attempt,
    resolve_place,
    shared_store,
)
from zloom.mailbox import Mailbox
from zloom.messages import Failure
from zloom.metrics import MetricBuffer
from zloom.model import MAX_NAMED_STEP, Outcome, Phase, Replica
from zloom.rounds import Register, Round
from zloom.security import resolve_key
from zloom.session_state import State
from zloom.settings import WeaveletSettings, check_topic, resolve_broker, resolve_start_paused
from zloom.socket_options import Context
from zloom.store_register import Store, StoreRegister
from zloom.training import Training
from zloom.words import text_of

REASON_LIMIT = 500
"""Characters of a reason to leave: a line or two of an exception's text."""

NEEDED_POLL = 0.005
"""Seconds between two looks whether another rank still needs the store that this process may serve."""

UNSTARTED = (
    "this weavelet was never started, so nothing can steer the training; use it in a `with` block, or call "
    "start() before the first step"
)


class Steerable(Declaring, Disownable):
    """The part that `zloom.Weavelet` and `zloom.AsyncWeavelet` share.

    Nothing here blocks, nor raises because of the network. In a forked child every method does nothing, after
    one warning: sockets and threads belong to the parent.
    """

    def __init__(
        self,
        run: str,
        *,
        broker: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        attempt: str | None = None,
        inherit: bool = False,
        resumed: bool = False,
        pause_ready: Callable[[], bool] | None = None,
        devices: DeviceProbe | None = None,
        context: Context | None = None,
        settings: WeaveletSettings | None = None,
    ) -> None:
        """Prepare a weavelet; `start`, or the block of a `with`, begins to look for the broker.

        Args:
            run: The training job's name.
            broker: Control endpoint; else $ZLOOM_BROKER, else the socket of this user on this host.
            rank: Of this process; else from torch.distributed, RANK, or Slurm under `srun`.
            world_size: Processes of the job; from the same sources.
            attempt: This launch's id; else torchelastic's run id, else one that rank 0 makes and shares in
                torch.distributed's store, for which the other ranks wait here.
            inherit: Begin a new attempt with the config that the one before ended with.
            resumed: The trainer began from a checkpoint, and the values that it declares are those of then.
                In an attempt that was steered already they hold, and become its config again; otherwise a
                process that comes later takes the newest config.
            pause_ready: Asked at a safe point whether the training may pause there.
            devices: Finds the devices; by default one that asks NVML.
            context: Shared with a broker in this process, for an inproc endpoint.
            settings: Options; see `WeaveletSettings`.

        Raises:
            SettingsError: Rank, world size or attempt cannot be known, or a name, endpoint or key is
                none.
            TransportError: No broker was named, and this system has no place for the default endpoint.
        """
        super().__init__()
        group = initialised_group()
        self._place = resolve_place(rank, world_size, os.environ, group)
        self._run = check_name("run", run)
        self._attempt = resolve_attempt(attempt, run, self._place, os.environ, group)
        self._replica_id = incarnation(self._place.rank)
        self._endpoint = resolve_broker(broker, os.environ)
        self._inherit = inherit
        self._resumed = resumed
        self._probe = devices
        self._context = context
        self._settings = settings or WeaveletSettings()
        self._key = resolve_key(self._settings.key, os.environ, self._endpoint)
        registry = Registry(_log_error)
        self._mailbox = Mailbox(registry, self._answer, self._confirm, _log)
        store = shared_store(self._place, group)
        self._mailbox.decide_in(self._find_register(store), self._settings.hold_limit)
        if pause_ready is not None:
            self._mailbox.pause.ready = pause_ready
        self._metrics = MetricBuffer(self._settings.metric_points, self._settings.status_points)
        self._training = Training(registry, self._mailbox, self._metrics)
        self._engine: Engine | None = None
        start_paused = resolve_start_paused(self._settings.start_paused, os.environ)
        if start_paused is not None:
            self._mailbox.pause.begin_with(start_paused)
        self._mailbox.waiting = True  # so that a `tick` before the start takes the long way, where it is seen
        self._begun = False
        self._started = False
        self._closed = False
        self._forked = False
        self._warned: set[str] = set()
        for text in (remote_master(broker, os.environ), lacks_store(world_size, self._place, store)):
            if text is not None:
                warnings.warn(text, RuntimeWarning, stacklevel=2)

    # --- reports ------------------------------------------------------------------------------

    def report(self, /, **metrics: Any) -> None:
        """Report numbers or tensors of one element, at the step that is under way.

        Costs about a microsecond for a number and never waits, for a GPU neither. All points are kept for the
        broker up to a bound, then the oldest are dropped and counted.
        """
        if self._forked:
            self._is_forked()
        else:
            self._metrics.append(self._training.step, metrics)

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Say what the trainer does from now on; as a context manager, only as long as the block lasts.

        While it is not `training`, a lack of steps does not count as a stall.

        Raises:
            SettingsError: There is no such phase.
        """
        if name not in get_args(Phase):
            raise SettingsError(f"phase is {name!r}; expected one of {', '.join(get_args(Phase))}")
        former = self._training.phase
        self._set_phase(name)
        return self._former_phase(former)

    @contextmanager
    def _former_phase(self, former: Phase) -> Iterator[None]:
        try:
            yield
        finally:
            self._set_phase(former)

    def _set_phase(self, name: Phase) -> None:
        if not self._is_forked():
            self._training.enter(name, time.monotonic())
            self._post(Engine.status_changed)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on a topic of your own, at most once. What cannot be sent now is dropped and counted.

        Raises:
            SettingsError: The topic is no text of Unicode, or the payload no bytes.
        """
        check_topic(topic)
        _check_payload(payload)
        if not self._is_forked():
            self._post(Engine.publish, topic, payload)

    # --- state --------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The training job's name."""
        return self._run

    @property
    def attempt(self) -> str:
        """The id of this launch of the run."""
        return self._attempt

    @property
    def rank(self) -> int:
        """Of this process in the job."""
        return self._place.rank

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self._place.world_size

    @property
    def replica_id(self) -> str:
        """This process's id as a replica, fresh at each start."""
        return self._replica_id

    @property
    def step(self) -> int:
        """The step that is under way, 0 before the first."""
        return self._training.step

    @property
    def paused(self) -> bool:
        """Whether the training is held at a safe point."""
        return self._mailbox.pause.active and not self._closed

    def end_pause(self) -> None:
        """Let a paused training go on. It takes no lock: any thread and any signal handler may call it."""
        if not self._is_forked():
            self._mailbox.pause.end()
            self._post(Engine.pause_ended)

    def depart(self, reason: str) -> None:
        """Say that this process is about to end, as a handler of SIGTERM knows; it ends a pause.

        Ranks that share a store and stand at one safe point with this one, in a pause or for what they
        decide, leave it with the same `departure`, so that all can end and none waits for another. It takes
        no lock: any thread and any signal handler may call it.

        Args:
            reason: What `departure` returns on all ranks; operators do not see it.
        """
        self._mailbox.parting.depart(reason)
        self.end_pause()

    @property
    def departure(self) -> str:
        """Why all ranks are to end that stood at the last safe point; empty where they go on.

        A rank that met no other there is on its own, and finds it empty after its own `depart` too.
        """
        return self._mailbox.parting.reason

    @property
    def state(self) -> State:
        """Where the conversation with the broker stands."""
        return self._engine.state if self._engine is not None else State.NEW

    @property
    def counters(self) -> WeaveletCounters | None:
        """What was dropped, missed or repeated so far; None before the start."""
        return self._engine.counters if self._engine is not None else None

    # --- inside -------------------------------------------------------------------------------

    def _disown(self) -> None:
        self._forked = True
        self._mailbox.waiting = True  # so that `tick` takes the long way, where it is seen

    def _answer(self, revision: int, outcome: Outcome) -> None:
        self._post(Engine.answer, revision, outcome)

    def _confirm(self, round: Round, step: int) -> None:
        self._post(Engine.confirm, round, step)

    def _find_register(self, store: Store | None) -> Register | None:
        if store is None:
            return None
        prefix = f"zloom/{self._run}/{self._attempt}/rounds"
        serves = self._place.rank == 0 and not agent_serves_store(os.environ)
        return StoreRegister(store, self._place.rank, self._place.world_size, prefix, serves=serves)

    def _is_needed(self, deadline: float) -> bool:
        """Whether the end of this process must wait for another rank, until `deadline` at most.

        One that is a moment behind would find no store in which to look for what it is to do.
        """
        return time.monotonic() < deadline and self._mailbox.parting.is_needed

    def _make_engine(self) -> Engine:
        replica = Replica(
            self._replica_id,
            self._run,
            self._attempt,
            self._place.rank,
            self._place.world_size,
            socket.gethostname(),
            os.getpid(),
            resumed=self._resumed,
        )
        return Engine(
            replica,
            self._endpoint,
            self._training,
            self._settings,
            key=self._key,
            inherit=self._inherit,
            probe=self._probe,
            context=self._context,
        )

    def _check_startable(self) -> None:
        if self._closed or self._engine is not None:
            raise SettingsError("a weavelet is started once; make a new one")
        self._started = True
        self._mailbox.waiting = self._inherit or self._mailbox.pause.coming
        self._training.thread = threading.get_ident()  # most likely; a safe point will tell

    def _begin(self) -> None:
        # What is inherited must fit what is declared. So then the first hello waits until the trainer is at
        # its first safe point, or asks for the broker's state.
        if self._inherit and not self._begun:
            self._begun = True
            self._post(Engine.begin)

    def _begin_step(self, step: int | None) -> None:
        training = self._training
        if step is None:
            training.step += 1
            return
        number = index(step)  # a count of NumPy or a tensor is one too, but no message could hold it
        if training.step < number <= MAX_NAMED_STEP:
            training.step = number
            return
        training.step += 1
        problem = (
            "does not increase" if number <= training.step else "is beyond 2^52, which no training reaches"
        )
        self._warn_once(f"tick({step}) {problem}; steps are counted on, now {training.step}")

    def _serve(self, now: float) -> bool:
        """Run the mailbox at this safe point; return whether the training must wait here."""
        training, mailbox = self._training, self._mailbox
        training.thread = threading.get_ident()
        before, served = _state(mailbox), training.serving
        training.serving = True
        try:
            if training.broken is not None:
                error, training.broken = training.broken, None
                raise error
            mailbox.run(training.step, now, trained=training.trained)
        finally:
            training.serving = served  # a handler may have reached another safe point, which is refused
            if _state(mailbox) != before:
                self._post(Engine.status_changed)
        return mailbox.must_wait

    def _hold_again(self) -> None:
        # An exception, Ctrl-C for one, left the wait: a trainer that goes on all the same is held again.
        if self._mailbox.must_wait and not self._closed:
            self._mailbox.waiting = True

    def _wait_left(self, now: float) -> float:
        """Seconds until a trainer that waits looks at its mailbox again, whatever comes."""
        until = self._mailbox.pause.until
        poll = self._mailbox.poll(now)
        poll = self._settings.pause_poll if poll is None else poll
        return poll if until is None else max(0.0, min(poll, until - now))

    def _tell_of_failure(self, failure: Failure) -> None:
        for handler in self._training.registry.failures:
            try:
                handler(failure)
            except Exception:  # a user's handler may raise anything, and the next is to be told all the same
                logging.getLogger("zloom").exception("a handler of failures raised")

    def _is_forked(self) -> bool:
        if self._forked:
            self._warn_once(f"the weavelet of {self._run} does nothing in this forked process")
        return self._forked

    def _warn_once(self, text: str, calls: int = 3) -> None:
        """Warn of the line that called a method so many calls up from here."""
        kind = text.partition("(")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, RuntimeWarning, stacklevel=calls + 1)

    def _is_unstarted(self) -> bool:
        if not (self._started or self._closed or self._forked):
            self._warn_once(UNSTARTED, calls=4)
        return not self._started


def _check_payload(payload: object) -> None:
    if not isinstance(payload, bytes):
        raise SettingsError(f"payload is of type {type(payload).__name__}; expected bytes")


def _log_error(what: str, error: BaseException) -> None:
    text = "%s raised; what was asked for is rejected"
    logging.getLogger("zloom").error(text, what, exc_info=error)


def _log(text: str) -> None:
    logging.getLogger("zloom").warning("%s", text)


def _state(mailbox: Mailbox) -> tuple[object, ...]:
    """What operators are told at once; the values of ramps on their way come with each beat."""
    ramps = [(name, ramp.revision, ramp.error) for name, ramp in mailbox.ramps.states.items()]
    return mailbox.pause.active, mailbox.holding, mailbox.lacks_config, ramps


def reason_of(error: BaseException | None) -> str:
    """Return the reason to leave that an exception is."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "finished"
    # Ctrl-C reaches a task of asyncio as its cancellation.
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "interrupted"
    text = text_of(error)
    return f"failed: {type(error).__name__}{': ' if text else ''}{text}"[:REASON_LIMIT]
