"""A weavelet in a process of its own, for trainers that take their changes from a queue."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from msgspec import UNSET, Meta

from zloom.errors import CannotSteer, SettingsError
from zloom.launch import initialised_group, resolve_attempt, resolve_place
from zloom.pause import Limit, Steps
from zloom.settings import WeaveletSettings
from zloom.steerable import reason_of
from zloom.weavelet import Weavelet

POLL = 0.02
"""Seconds between two looks for changes: the trainer looks at its queue once a step, seldom more often."""

CLOSE_TIMEOUT = 1.5
"""Seconds that a process may take to leave before it is terminated: the whole of the way out has 2."""


class Queue(Protocol):
    """Any queue that a spawned process can put on, such as one of `multiprocessing` or of a manager."""

    def put(self, item: tuple[str, Any], /) -> object: ...


@dataclass(frozen=True, slots=True)
class QueueKey:
    """A config key whose values go on the queue.

    Attributes:
        name: What operators call it.
        initial: The baseline: the trainer's own value.
        type: With bounds, such as `Annotated[float, zloom.Meta(gt=0)]`; by default the type of `initial`.
        description: For operators.
    """

    name: str
    initial: Any
    type: Any = UNSET
    description: str = ""

    def declare(self, weavelet: Weavelet, queue: Queue) -> None:
        """Have a weavelet put the key's values on a queue.

        Raises:
            DeclarationError: Name, type or baseline cannot work.
        """
        annotation = type(self.initial) if self.type is UNSET else self.type
        declaration = weavelet.on_config(
            self.name, initial=self.initial, type=annotation, description=self.description
        )
        declaration(lambda value: queue.put((self.name, value)))


def _reduce_meta(meta: Meta) -> tuple[Any, ...]:
    # msgspec has no pickling of its own for it, and `Annotated[float, Meta(gt=0)]` is how bounds are written.
    given = {name: getattr(meta, name) for name in dir(meta) if not name.startswith("_")}
    return partial(Meta, **{name: value for name, value in given.items() if value is not None}), ()


ForkingPickler.register(Meta, _reduce_meta)


class WeaveletProcess:
    """A running weavelet process; `weavelet_process` makes one. Its methods may be called from any thread."""

    def __init__(self, queue: Queue, options: dict[str, Any], keys: Sequence[QueueKey]) -> None:
        context = multiprocessing.get_context("spawn")
        self._step = context.Value("q", 0, lock=False)  # one writer, and 64 bits are written as a whole
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._process = context.Process(
            target=_serve, args=(queue, options, keys, self._step, theirs), name="zloom-weavelet", daemon=True
        )
        try:
            self._process.start()
        except RuntimeError as error:
            if "context" not in str(error):
                raise
            raise SettingsError(
                "the queue cannot go to a spawned process; make it with "
                'multiprocessing.get_context("spawn").Queue()'
            ) from error
        theirs.close()

    def tick(self, step: int | None = None) -> None:
        """Say that a step begins; outcomes name the newest step that was told."""
        self._step.value = self._step.value + 1 if step is None else step

    def close(self, reason: str = "finished") -> None:
        """Say goodbye and end the process, within 2 s. A second call does nothing."""
        with contextlib.suppress(OSError):  # the process is gone, or this is the second call
            self._pipe.send(reason)
        self._pipe.close()
        self._process.join(CLOSE_TIMEOUT)
        if self._process.is_alive():
            self._process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(reason_of(error))


def weavelet_process(
    queue: Queue,
    *,
    run: str,
    keys: Sequence[QueueKey],
    broker: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    attempt: str | None = None,
    inherit: bool = False,
) -> WeaveletProcess:
    """Start a weavelet in a process of its own, which puts each change on a queue as `(key, value)`.

    A change counts as applied when it is on the queue: what the trainer makes of it is not known, and the
    trainer cannot be paused from there. One that can call `tick` itself is better off with `Weavelet`, which
    costs its training thread nothing either. ::

        queue = multiprocessing.get_context("spawn").Queue()
        keys = [zloom.QueueKey("learning_rate", 3e-4)]
        with zloom.weavelet_process(queue, run="old-loop", keys=keys) as weavelet:
            for batch in loader:
                weavelet.tick()
                while not queue.empty():
                    key, value = queue.get()

    The process is spawned, so the module that calls this must be importable without doing so again
    (`if __name__ == "__main__":`). It ends with the one that started it. The other arguments are those of
    `Weavelet`.

    Raises:
        SettingsError: Rank, world size or attempt cannot be known, or a name or endpoint is none.
        DeclarationError: The name, type or baseline of a key cannot work.
    """
    group = initialised_group()
    place = resolve_place(rank, world_size, os.environ, group)
    options = {
        "run": run,
        "broker": broker,
        "rank": place.rank,
        "world_size": place.world_size,
        "attempt": resolve_attempt(attempt, run, place, os.environ, group),
        "inherit": inherit,
    }
    _prepare(queue, options, keys)  # what cannot work is to raise here, not in another process
    return WeaveletProcess(queue, options, keys)


class _Apart(Weavelet):
    """A weavelet that is not where the trainer is."""

    def start(self) -> None:
        self._training.elsewhere = "its weavelet is in a process of its own and cannot see the trainer's"
        super().start()


def _prepare(queue: Queue, options: dict[str, Any], keys: Sequence[QueueKey]) -> Weavelet:
    weavelet = _Apart(**options, settings=WeaveletSettings(hold_watch=None))
    for key in keys:
        key.declare(weavelet, queue)
    weavelet.on_command("pause")(_refuse_pause)
    weavelet.on_command("resume")(_refuse_resume)
    return weavelet


def _serve(
    queue: Queue, options: dict[str, Any], keys: Sequence[QueueKey], step: Any, pipe: "Connection[Any, str]"
) -> None:
    # Ctrl-C goes to all processes of a terminal; the trainer decides whether it ends for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    weavelet = _prepare(queue, options, keys)
    weavelet.start()
    parent = multiprocessing.parent_process()
    ends: list[Any] = [pipe, parent.sentinel] if parent is not None else [pipe]
    trainer = os.getppid()
    # A worker that the trainer forked holds the other ends open when the trainer is killed.
    while not (ended := wait(ends, POLL)) and os.getppid() == trainer:
        if step.value > weavelet.step:
            weavelet.tick(step.value)
        else:
            weavelet.safe_point()
    weavelet.close(_last_word(pipe) if pipe in ended else "the trainer's process is gone")


def _refuse_pause(limit: Limit = None) -> NoReturn:
    """Refused: the weavelet is in a process of its own and cannot hold the trainer's."""
    raise CannotSteer("this weavelet is in a process of its own and cannot hold the trainer's")


def _refuse_resume(steps: Steps = None) -> NoReturn:
    """Refused: there is never a pause to end."""
    raise CannotSteer("this weavelet is in a process of its own and cannot hold the trainer's")


def _last_word(pipe: "Connection[Any, str]") -> str:
    try:
        return pipe.recv()
    except EOFError:
        return "the trainer let go of its weavelet process"
