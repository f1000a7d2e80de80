"""Markers for methods that steer: which key or command a method answers to.

A marker only writes a note on the function, so a class may use it where nothing of zloom runs and
torch is not installed; whoever owns the weavelet (`WeaveletCallback` for a LightningModule) looks for
the notes with `find_marked` and registers the bound methods.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from zloom.errors import DeclarationError

Method = TypeVar("Method", bound=Callable[..., Any])

_NOTE = "__zloom_marker__"


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
"""No baseline was named; None is one."""


@dataclass(frozen=True)
class ConfigMarker:
    """What `on_config` was given.

    Attributes:
        key: Name of the config key.
        initial: The baseline, or UNSET where `get` tells it.
        get: Called with the object that owns the method; returns the baseline.
        description: One line for people.
        ready: Called with the object that owns the method and the new value; False lets the change wait for a
            later safe point.
    """

    key: str
    initial: Any = UNSET
    get: Callable[[Any], Any] | None = None
    description: str = ""
    ready: Callable[[Any, Any], bool] | None = None


@dataclass(frozen=True)
class CommandMarker:
    """What `on_command` was given: the command's name and one line for people."""

    name: str
    description: str = ""


Marker = ConfigMarker | CommandMarker

_ARGUMENTS = {"on_config": '"learning_rate", initial=…', "on_command": '"stop"'}
"""Of each decorator, as an example."""


def on_config(
    key: str,
    *,
    initial: Any = UNSET,
    get: Callable[[Any], Any] | None = None,
    description: str = "",
    ready: Callable[[Any, Any], bool] | None = None,
) -> Callable[[Method], Method]:
    """Mark a method as the handler of a config key.

    The method takes the new value, whose annotation is the key's type, and may return a callable that
    undoes the change. `get` is called with the object itself, `ready` with the object and the new value.

    Raises:
        DeclarationError: Both `initial` and `get` are given, or neither: every key has one baseline. Or there
            is no name.
    """
    check_name("on_config", key)
    if (initial is UNSET) == (get is None):
        raise DeclarationError(f"on_config({key!r}) needs a baseline: give either initial= or get=")
    return _mark(ConfigMarker(key, initial, get, description, ready))


def on_command(name: str, *, description: str = "") -> Callable[[Method], Method]:
    """Mark a method as the handler of a command; its annotated arguments are the command's.

    Raises:
        DeclarationError: There is no name.
    """
    check_name("on_command", name)
    return _mark(CommandMarker(name, description))


def check_name(decorator: str, name: object) -> None:
    """Raise DeclarationError where a decorator was written without its arguments, as `@on_command`."""
    if not isinstance(name, str):
        raise DeclarationError(f"{decorator} takes a name: write @{decorator}({_ARGUMENTS[decorator]})")


def find_marked(owner: object) -> list[tuple[Marker, Callable[..., Any]]]:
    """Return the markers of `owner`'s methods, each with the bound method, in order of definition.

    A base class comes before its subclasses. An override without a marker of its own keeps the one that it
    overrides, and of two methods of a class for one key the later wins.
    """
    found: dict[str, Marker] = {}
    for name, marker in _notes(type(owner)):
        found[name] = marker
    return [(marker, getattr(owner, name)) for name, marker in found.items()]


def _notes(cls: type) -> Iterator[tuple[str, Marker]]:
    # Not inspect.getmembers: it reads every property, and some of a LightningModule raise.
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            marker = getattr(member, _NOTE, None)
            if isinstance(marker, ConfigMarker | CommandMarker):
                yield name, marker


def _mark(marker: Marker) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        setattr(method, _NOTE, marker)
        return method

    return mark
