"""How a trainer declares what can be steered."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import UNSET

from zloom.declarations import CommandReady, Ready
from zloom.engine import Engine
from zloom.handlers import FailureHandler
from zloom.markers import check_name
from zloom.settings import check_topic
from zloom.training import Training

Handler = TypeVar("Handler", bound=Callable[..., Any])
OwnHandler = Callable[[str, bytes, str], object]
"""Takes topic, payload and sender."""


class Declaring(ABC):
    """The decorators of a weavelet; they may be used before its start, and while training goes on."""

    _training: Training

    @abstractmethod
    def _post(self, method: Callable[..., None], *arguments: object) -> None:
        """Have a method of the engine called on its loop; while there is none, do nothing."""

    @abstractmethod
    def _is_forked(self) -> bool:
        """Whether this is a forked child, where nothing is done."""

    def on_config(
        self,
        key: str,
        *,
        initial: object = UNSET,
        get: Callable[[], object] | None = None,
        type: Any = UNSET,
        description: str = "",
        ready: Ready | None = None,
        immediate: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Make a function the handler of a config key.

        It takes the new value, and runs on the training thread at a safe point. It may return a callable that
        undoes the change. Declaring a key again replaces it, without a word. Call this from the training
        thread.

        Args:
            key: What operators call it.
            initial: The baseline: the value that is effective without any steering.
            get: Called once, now, for the baseline, in place of `initial`.
            type: The value's type; by default the annotation of the handler's parameter.
            description: For operators; by default the first line of the handler's docstring.
            ready: Asked with the new value, at a safe point, whether the key may change to it there; if not,
                the update waits for a later one.
            immediate: Run the handler at once on the weavelet's loop, unless the update asks for a safe point
                or something still waits for one.

        Raises:
            DeclarationError: The decorated function, type or baseline cannot work, or there is no name.
        """
        check_name("on_config", key)

        def declare(handler: Handler) -> Handler:
            if not self._is_forked():
                self._training.registry.add_key(
                    key,
                    handler,
                    initial=initial,
                    get=get,
                    type=type,
                    description=description,
                    ready=ready,
                    immediate=immediate,
                )
                self._post(Engine.declare)
            return handler

        return declare

    def on_command(
        self, name: str, *, description: str = "", ready: CommandReady | None = None
    ) -> Callable[[Handler], Handler]:
        """Make a function the handler of a command, run on the training thread at a safe point.

        Its annotated parameters are the command's arguments; what it returns is shown to the operator.
        `ready` is asked, without arguments, whether it may run at a safe point.

        Raises:
            DeclarationError: The decorated function cannot work, or there is no name.
        """
        check_name("on_command", name)

        def declare(handler: Handler) -> Handler:
            if not self._is_forked():
                self._training.registry.add_command(name, handler, description=description, ready=ready)
                self._post(Engine.declare)
            return handler

        return declare

    def on_failure(self, handler: FailureHandler) -> FailureHandler:
        """Have a function told of failures: of a device that this replica uses, or of another replica.

        It runs at once and not at a safe point, as the training may hang in a collective with the one that
        failed: on a thread of its own, or that of the loop of an `AsyncWeavelet`, where it must be short.
        """
        if not self._is_forked():
            self._training.registry.add_failure(handler)
        return handler

    def subscribe(self, topic: str, handler: OwnHandler) -> None:
        """Have payloads on users' own topics that begin with `topic` handed over, at most once each.

        The handler takes topic, payload and sender, runs on the weavelet's loop, and must be short.

        Raises:
            SettingsError: The topic is no text of Unicode.
        """
        check_topic(topic)
        if not self._is_forked():
            self._training.subscribers.append((topic, handler))
            self._post(Engine.subscribe)
