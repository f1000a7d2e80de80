"""What a trainer declares: a key or command with its handler, and the types read from the handler."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from msgspec import UNSET

from zloom.errors import DeclarationError, SettingsError
from zloom.model import NAME, NAME_RULE, Command, Key, Schema, Value
from zloom.schema import convert, describe, plain, schema_of

KeyHandler = Callable[[Any], object]
"""Takes the new value; may return a callable without arguments that undoes what it did."""
CommandHandler = Callable[..., object]
"""Takes the command's arguments by name; what it returns is reported as text."""
Ready = Callable[[Any], bool]
"""Takes the value that is asked for; says whether the key may change to it at this safe point."""
CommandReady = Callable[[], bool]
"""Says whether the command may run at this safe point."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(slots=True, eq=False)
class DeclaredKey:
    """A key with its handler and its value now."""

    key: Key
    annotation: Any
    handler: KeyHandler
    ready: Ready | None
    value: Value

    def is_ready(self, value: Value) -> bool:
        """Ask whether the key may change to the value now. One that is no value may, to be rejected."""
        if self.ready is None:
            return True
        try:
            new = self.read(value)
        except SettingsError:
            return True
        return self.ready(new)

    def read(self, value: Value) -> Any:
        """Return the value as the handler takes it; raises SettingsError naming the key."""
        try:
            return convert(value, self.annotation, self.key.schema)
        except SettingsError as error:
            raise SettingsError(f"{self.key.name}: {error}") from None


@dataclass(slots=True, eq=False)
class DeclaredCommand:
    """A command with its handler."""

    command: Command
    annotations: dict[str, Any]
    handler: CommandHandler
    ready: CommandReady | None

    def read(self, arguments: Mapping[str, Value]) -> dict[str, Any]:
        """Return the arguments as the handler takes them; raises SettingsError naming the argument."""
        for name in self.command.schema.required or ():
            if name not in arguments:
                raise SettingsError(f"{name}: expected {describe(self._schema(name))}, got nothing")
        return {name: self._read(name, value) for name, value in arguments.items()}

    def _schema(self, name: str) -> Schema:
        return (self.command.schema.properties or {})[name]

    def _read(self, name: str, value: Value) -> Any:
        if name not in self.annotations:
            takes = ", ".join(self.annotations) or "no arguments"
            raise SettingsError(f"{name}: {self.command.name} takes {takes}")
        try:
            return convert(value, self.annotations[name], self._schema(name))
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None


def declare_key(
    name: str,
    handler: KeyHandler,
    *,
    initial: object = UNSET,
    get: Callable[[], object] | None = None,
    type: Any = UNSET,
    description: str = "",
    ready: Ready | None = None,
    immediate: bool = False,
) -> DeclaredKey:
    """Build a key from its handler; `zloom.handlers.Registry.add_key` documents the arguments."""
    _check(name, handler)
    baseline = _baseline(name, initial, get)
    annotation = _key_annotation(name, handler, type, baseline)
    if ready is not None:
        _first_parameter(name, ready, "ready")
    try:
        schema = schema_of(annotation)
    except DeclarationError as error:
        raise DeclarationError(f"key {name}: {error}") from error
    try:
        value = plain(convert(plain(baseline), annotation, schema))
    except SettingsError as error:
        raise DeclarationError(f"key {name}: its baseline does not fit its type: {error}") from error
    key = Key(name, schema, value, _described(description, handler), immediate)
    return DeclaredKey(key, annotation, handler, ready, value)


def declare_command(
    name: str, handler: CommandHandler, *, description: str = "", ready: CommandReady | None = None
) -> DeclaredCommand:
    """Build a command from its handler; `zloom.handlers.Registry.add_command` documents the arguments."""
    _check(name, handler)
    annotations: dict[str, Any] = {}
    properties: dict[str, Schema] = {}
    required: list[str] = []
    hints = _hints(name, handler)
    for parameter in inspect.signature(handler).parameters.values():
        annotations[parameter.name] = annotation = _argument(name, parameter, hints)
        try:
            properties[parameter.name] = schema_of(annotation)
        except DeclarationError as error:
            raise DeclarationError(f"command {name}: argument {parameter.name}: {error}") from error
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema = Schema(type=["object"], properties=properties, required=required or None)
    command = Command(name, schema, _described(description, handler))
    return DeclaredCommand(command, annotations, handler, ready)


def _check(name: str, handler: object) -> None:
    if not NAME.fullmatch(name):
        raise DeclarationError(f"{name!r} cannot be a name; it must be {NAME_RULE}")
    if not callable(handler):
        raise DeclarationError(f"{name}: the handler must be callable, got {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise DeclarationError(
            f"{name}: the handler is async, but runs between two steps of the training; use a plain function"
        )


def _baseline(name: str, initial: object, get: Callable[[], object] | None) -> object:
    if (initial is UNSET) == (get is None):
        raise DeclarationError(f"key {name} needs a baseline: give either initial= or get=, and not both")
    return initial if get is None else get()


def _key_annotation(name: str, handler: KeyHandler, type_: Any, baseline: object) -> Any:
    parameter = _first_parameter(name, handler, "the handler")
    if type_ is not UNSET:
        return type_
    hints = _hints(name, handler)
    if parameter in hints:
        return hints[parameter]
    if baseline is None:
        raise DeclarationError(
            f"key {name}: its type cannot be read from None; annotate the handler or give type="
        )
    return type(baseline)


def _first_parameter(name: str, function: Callable[[Any], object], what: str) -> str | None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some builtins have none.
        return None
    try:
        signature.bind(None)
    except TypeError as error:
        raise DeclarationError(f"key {name}: {what} must take the new value alone: {error}") from error
    return next(iter(signature.parameters))


def _argument(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.kind not in _NAMED:
        raise DeclarationError(f"command {name}: {parameter} cannot be passed by name; name each argument")
    if parameter.name not in hints:
        raise DeclarationError(f"command {name}: argument {parameter.name} has no type; annotate it")
    return hints[parameter.name]


def _hints(name: str, handler: Callable[..., object]) -> dict[str, Any]:
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = function.__init__ if inspect.isclass(function) else function.__call__
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{name}: an annotation of the handler cannot be read: {error}; import it at run time too"
        ) from error
    except TypeError:  # A builtin: nothing is annotated.
        return {}


def _described(description: str, handler: Callable[..., object]) -> str:
    """A description as a message can hold it; what is no Unicode would keep all declarations back."""
    return (description or _summary(handler)).encode(errors="replace").decode()


def _summary(handler: Callable[..., object]) -> str:
    """The first line of a function's docstring; a class's or builtin's is about something else."""
    documented = handler if inspect.isfunction(handler) or inspect.ismethod(handler) else None
    return (inspect.getdoc(documented) or "").partition("\n")[0] if documented else ""
