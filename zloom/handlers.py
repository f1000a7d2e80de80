"""The keys, commands and failure handlers of a trainer; a change is carried out wholly or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, Struct

from zloom.declarations import (
    CommandHandler,
    CommandReady,
    DeclaredCommand,
    DeclaredKey,
    KeyHandler,
    Ready,
    declare_command,
    declare_key,
)
from zloom.errors import CannotSteer, SettingsError, UndoError
from zloom.messages import Failure
from zloom.model import Command, Key, Revision, Value
from zloom.schema import plain
from zloom.words import error_text, text_of

FailureHandler = Callable[[Failure], object]
"""Takes what failed: a device that this replica uses, or another replica of its run."""

Raised = Callable[[str, BaseException], object]
"""Takes whose code of the trainer raised, in words, and what. `Exception.__traceback__` says where."""

UNDECLARED = "undeclared"
"""The error of a revision that concerns nothing which this replica declares."""


def _nothing() -> None:
    """Undo what changed nothing."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The change was made; `detail` is what a command's handler returned, as text."""

    detail: str = ""
    undo: Callable[[], None] = field(default=_nothing, compare=False)
    """Undoes an update. Raises UndoError when that fails."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The change was not made, and nothing of it is left."""

    error: str


class _Change(Struct, frozen=True):
    key: DeclaredKey
    new: Any
    value: Value


class Registry:
    """What one replica declares, with the current values.

    Declaring and applying belong to the training thread. `keys`, `commands`, `version`, `check` and
    `is_immediate` may be used from any thread: the tables are replaced, never changed in place, which also
    lets a handler declare something while it runs.

    Args:
        raised: Told of each error of the trainer's own code, of which operators get the text alone.
    """

    def __init__(self, raised: Raised = lambda *_: None) -> None:
        self.version = 0
        """Grows with each declaration of a key or command."""
        self.failures: tuple[FailureHandler, ...] = ()
        """Whom to tell of a failure, in the order of registration."""
        self._raised = raised
        self._keys: dict[str, DeclaredKey] = {}
        self._commands: dict[str, DeclaredCommand] = {}

    def add_key(
        self,
        name: str,
        handler: KeyHandler,
        *,
        initial: object = UNSET,
        get: Callable[[], object] | None = None,
        type: Any = UNSET,
        description: str = "",
        ready: Ready | None = None,
        immediate: bool = False,
    ) -> None:
        """Declare a key, or declare it anew in its old place, with its baseline as current value.

        Args:
            name: What operators call it.
            handler: Makes a new value effective. It may return a callable that undoes this, for the case
                that another key of the same update is refused; without one it is called with the old value.
                A text in the callable's attribute `detail` is shown to operators.
            initial: The baseline: the value that is effective without any steering.
            get: Called once, now, for the baseline, in place of `initial`.
            type: The value's type. Left out, the annotation of the handler's first parameter counts, and
                without one the type of the baseline.
            description: For operators; left out, the first line of the handler's docstring.
            ready: Asked with the new value, at a safe point, whether the key may change to it there; if not,
                the update waits for a later one.
            immediate: An update may ask for the handler to run at once on the weavelet's own thread.

        Raises:
            DeclarationError: Name, type, baseline or handler cannot work; the text says why.
        """
        declared = declare_key(
            name,
            handler,
            initial=initial,
            get=get,
            type=type,
            description=description,
            ready=ready,
            immediate=immediate,
        )
        self._keys = {**self._keys, name: declared}
        self.version += 1

    def add_command(
        self, name: str, handler: CommandHandler, *, description: str = "", ready: CommandReady | None = None
    ) -> None:
        """Declare a command, or declare it anew; its arguments are the handler's annotated parameters.

        Raises:
            DeclarationError: Name or handler cannot work, or a parameter has no usable annotation.
        """
        declared = declare_command(name, handler, description=description, ready=ready)
        self._commands = {**self._commands, name: declared}
        self.version += 1

    def add_failure(self, handler: FailureHandler) -> None:
        """Have the handler told of failures."""
        self.failures = (*self.failures, handler)

    def keys(self) -> list[Key]:
        """Return the declared keys, in the order of their first declaration."""
        return [each.key for each in self._keys.values()]

    def commands(self) -> list[Command]:
        """Return the declared commands, in the order of their first declaration."""
        return [each.command for each in self._commands.values()]

    @property
    def values(self) -> dict[str, Value]:
        """The current value of each key: the last one applied, the baseline at first."""
        return {name: each.value for name, each in self._keys.items()}

    @property
    def baselines(self) -> dict[str, Value]:
        """The baseline of each key."""
        return {name: each.key.baseline for name, each in self._keys.items()}

    def read(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """Return what of the config is declared, each value as its key's type reads it: 1 as 1.0, for one.

        Raises:
            SettingsError: A value is not of its key's type or out of bounds; it names the key.
        """
        keys = self._keys
        return {name: plain(keys[name].read(value)) for name, value in config.items() if name in keys}

    def differing(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """Return what of the config is declared and not the current value, or no value at all."""
        keys = self._keys
        return {name: value for name, value in config.items() if name in keys and _differs(keys[name], value)}

    def is_ready(self, revision: Revision) -> bool:
        """Ask whether everything that the revision concerns may change now."""
        if revision.kind == "command":
            return self.is_command_ready(revision.command)
        return self.are_keys_ready(revision.changes)

    def is_command_ready(self, name: str) -> bool:
        """Ask whether the command may run now; an undeclared one may, to be rejected."""
        declared = self._commands.get(name)
        return declared is None or declared.ready is None or declared.ready()

    def are_keys_ready(self, changes: Mapping[str, Value]) -> bool:
        """Ask whether all of these keys that are declared may change to these values now."""
        return all(key.is_ready(changes[name]) for name, key in self._keys.items() if name in changes)

    def is_immediate(self, revision: Revision) -> bool:
        """Tell whether the revision asks to run at once and each of its keys here allows it."""
        if revision.kind != "config" or revision.mode != "immediate":
            return False
        keys, concerned = self._keys, False
        for name in revision.changes:
            if name in keys:
                if not keys[name].key.immediate:
                    return False
                concerned = True
        return concerned

    def check(self, changes: Mapping[str, Value]) -> str | None:
        """Return why `apply` would refuse these changes before running any handler, or None."""
        try:
            planned = self._plan(changes)
        except SettingsError as error:
            return str(error)
        return None if planned else UNDECLARED

    def apply(self, changes: Mapping[str, Value]) -> Applied | Rejected:
        """Change the keys that are declared here, all or none, in the order of declaration.

        All values are checked before the first handler runs. When a handler raises, those that ran are
        undone in reverse.

        Raises:
            UndoError: A handler raised, and then an undo did: the trainer's state is unknown.
        """
        try:
            planned = self._plan(changes)
        except SettingsError as error:
            return Rejected(str(error))
        return self._carry_out(planned) if planned else Rejected(UNDECLARED)

    def _plan(self, changes: Mapping[str, Value]) -> list[_Change]:
        planned = []
        for name, key in self._keys.items():
            if name in changes:
                new = key.read(changes[name])
                planned.append(_Change(key, new, plain(new)))
        return planned

    def _carry_out(self, planned: list[_Change]) -> Applied | Rejected:
        undos: list[tuple[str, Callable[[], object]]] = []
        details: list[str] = []
        for change in planned:
            name = change.key.key.name
            try:
                returned = change.key.handler(change.new)
            except Exception as error:  # noqa: BLE001 - a user's handler may raise anything
                self.tell_of(f"the handler of {name}", error)
                _take_back(undos)
                return Rejected(f"{name}: {_text(error)}")
            except BaseException:
                _take_back(undos)
                raise
            undos.append((name, returned if callable(returned) else _old_value(change.key)))
            if isinstance(detail := getattr(returned, "detail", None), str) and detail:
                details.append(f"{name}: {detail}")
        before = []
        for change in planned:
            before.append((change.key, change.key.value))
            change.key.value = change.value

        def undo() -> None:
            for key, value in before:
                key.value = value
            _take_back(undos)

        return Applied("; ".join(details), undo)

    def tell_of(self, what: str, error: BaseException) -> None:
        """Have the trainer's own log say where its code raised; a refusal in the proper words is no error."""
        if not isinstance(error, CannotSteer):
            self._raised(what, error)

    def run(self, command: str, arguments: Mapping[str, Value]) -> Applied | Rejected:
        """Carry out a command; what its handler returns becomes the outcome's detail."""
        declared = self._commands.get(command)
        if declared is None:
            return Rejected(UNDECLARED)
        try:
            read = declared.read(arguments)
        except SettingsError as error:
            return Rejected(f"{command}: {error}")
        try:
            returned = declared.handler(**read)
        except Exception as error:  # noqa: BLE001 - a user's handler may raise anything
            self.tell_of(f"the command {command}", error)
            return Rejected(f"{command}: {_text(error)}")
        return Applied("" if returned is None else text_of(returned))


def _differs(key: DeclaredKey, value: Value) -> bool:
    # Compared as the type reads them: 1 is the learning rate 1.0, and a property left out is its default.
    try:
        return plain(key.read(value)) != key.value
    except SettingsError:
        return True


def _old_value(key: DeclaredKey) -> Callable[[], object]:
    return lambda: key.handler(key.read(key.value))


def _take_back(undos: list[tuple[str, Callable[[], object]]]) -> None:
    """Undo in reverse; one that fails does not keep the others from being undone."""
    failed: list[tuple[str, BaseException]] = []
    for name, undo in reversed(undos):
        try:
            undo()
        except BaseException as error:  # noqa: BLE001 - whatever it was, what it left is to be known
            failed.append((name, error))
    if failed:
        texts = "; ".join(f"{name}: {_text(error)}" for name, error in failed)
        raise UndoError(
            f"an update was rejected and could not be taken back, so the trainer's state is mixed: {texts}"
        ) from failed[0][1]


def _text(error: BaseException) -> str:
    # What a handler refuses in these words is meant for operators, and no failure of the trainer's code.
    if isinstance(error, CannotSteer):
        return text_of(error)
    return error_text(error)
