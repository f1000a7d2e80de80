import enum
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from zloom.declarations import declare_command, declare_key
from zloom.errors import DeclarationError, SettingsError
from zloom.model import Schema
from zloom.schema import Meta

if TYPE_CHECKING:
    from fractions import Fraction

Rate = Annotated[float, Meta(gt=0, le=1)]


class Optimizer(enum.Enum):
    ADAM = "adam"
    SGD = "sgd"


def set_rate(value: Rate) -> None:
    """Set the base rate.

    Schedulers keep their shape.
    """


class Trainer:
    def set_rate(self, value: Rate) -> None: ...

    def __call__(self, value: Rate) -> None: ...

    @staticmethod
    def of(value: Rate) -> None: ...


def set_two(group: int, value: Rate) -> None: ...


def unannotated(value) -> None:  # type: ignore[no-untyped-def]
    ...


def unresolvable(value: "Fraction") -> None: ...


async def waits(value: float) -> None: ...


HANDLERS: list[Callable[..., object]] = [
    set_rate,
    Trainer().set_rate,
    Trainer(),
    Trainer.of,
    functools.partial(set_two, 0),
    functools.partial(functools.partial(set_two), 0),
]


@pytest.mark.parametrize("handler", HANDLERS, ids=range(len(HANDLERS)))
def test_the_type_is_read_from_the_handler(handler: Any) -> None:
    declared = declare_key("rate", handler, initial=1)
    assert declared.key.schema == Schema(type=["number"], exclusive_minimum=0, maximum=1)
    assert declared.key.baseline == declared.value == 1.0
    assert type(declared.value) is float


def test_a_predicate_takes_the_new_value() -> None:
    declared = declare_key("rate", set_rate, initial=1, ready=lambda value: value < 0.5)
    assert declared.is_ready(0.25)
    assert not declared.is_ready(1)
    with pytest.raises(DeclarationError, match="key rate: ready must take the new value alone"):
        declare_key("rate", set_rate, initial=1, ready=lambda: True)  # type: ignore[misc,arg-type]


def test_a_handler_without_annotation_needs_a_type_or_a_telling_baseline() -> None:
    assert declare_key("a", unannotated, initial=3, type=float).value == 3.0
    assert declare_key("a", unannotated, initial=3).key.schema == Schema(type=["integer"])
    assert declare_key("a", unannotated, initial=Optimizer.SGD).key.schema.enum == ["adam", "sgd"]
    assert declare_key("a", [].append, initial=True).key.schema == Schema(type=["boolean"])
    with pytest.raises(DeclarationError, match="its type cannot be read from None; annotate the handler"):
        declare_key("a", unannotated, initial=None)


def test_a_given_type_counts_for_more_than_the_annotation() -> None:
    assert declare_key("a", unresolvable, initial=3, type=int).key.schema == Schema(type=["integer"])


def test_the_baseline_may_come_from_a_getter_and_is_as_on_the_wire() -> None:
    def choose(value: Optimizer) -> None: ...

    declared = declare_key("optimizer", choose, get=lambda: Optimizer.SGD)
    assert declared.value == "sgd"
    assert declared.read("adam") is Optimizer.ADAM


def test_the_description_is_given_or_the_docstrings_first_line() -> None:
    assert declare_key("a", set_rate, initial=1).key.description == "Set the base rate."
    assert declare_key("a", set_rate, initial=1, description="rate").key.description == "rate"
    assert declare_key("a", [].append, initial=1).key.description == ""
    assert declare_key("a", Trainer(), initial=1).key.description == ""


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"name": "a/b"}, "'a/b' cannot be a name; it must be 1 to 128"),
    ({"handler": None}, "a: the handler must be callable, got None"),
    ({"handler": waits}, "a: the handler is async"),
    ({"initial": -1}, "key a: its baseline does not fit its type: expected number > 0, <= 1, got -1"),
    ({"initial": object()}, "key a: its baseline does not fit its type: <object object"),
    ({"get": lambda: 1}, "key a needs a baseline: give either initial= or get="),
    ({"type": set[int]}, "key a: type set[int] cannot be used"),
    ({"handler": set_two}, "key a: the handler must take the new value alone: missing a required argument"),
    ({"handler": lambda: None}, "the new value alone"),
    ({"handler": unresolvable}, "a: an annotation of the handler cannot be read: name 'Fraction'"),
]


@pytest.mark.parametrize(("change", "text"), BAD_KEYS, ids=lambda each: str(each)[:30])
def test_a_key_that_cannot_work_is_refused(change: dict[str, Any], text: str) -> None:
    arguments = {"name": "a", "handler": set_rate, "initial": 1, **change}
    with pytest.raises(DeclarationError) as caught:
        declare_key(**arguments)
    assert text in str(caught.value)


def test_a_key_without_baseline_is_refused() -> None:
    with pytest.raises(DeclarationError, match="key rate needs a baseline"):
        declare_key("rate", set_rate)


def test_a_commands_arguments_are_its_handlers_parameters() -> None:
    def save(path: str, *, kind: Literal["full", "weights"] = "full") -> None:
        """Save a checkpoint."""

    declared = declare_command("save", save)
    assert declared.command.description == "Save a checkpoint."
    assert declared.command.schema == Schema(
        type=["object"],
        properties={
            "path": Schema(type=["string"]),
            "kind": Schema(type=["string"], enum=["full", "weights"]),
        },
        required=["path"],
    )
    assert declared.read({"path": "x"}) == {"path": "x"}
    assert declared.read({"path": "x", "kind": "weights"}) == {"path": "x", "kind": "weights"}


def test_a_command_without_arguments_takes_none() -> None:
    declared = declare_command("go", lambda: None)
    assert declared.command.schema == Schema(type=["object"], properties={})
    assert declared.read({}) == {}
    with pytest.raises(SettingsError, match="speed: go takes no arguments"):
        declared.read({"speed": 1})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "start: expected integer, got nothing"),
        ({"start": "x"}, "start: expected integer, got 'x'"),
        ({"start": 1, "stop": 2}, "stop: trace takes start, end"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], text: str) -> None:
    def trace(start: int, end: int | None = None) -> None: ...

    with pytest.raises(SettingsError) as caught:
        declare_command("trace", trace).read(arguments)
    assert str(caught.value) == text


def test_a_command_that_cannot_work_is_refused() -> None:
    def positional(value: int, /) -> None: ...

    def anything(**options: int) -> None: ...

    def several(*values: int) -> None: ...

    def loose(value: Any) -> None: ...

    for handler in (positional, anything, several):
        with pytest.raises(DeclarationError, match="cannot be passed by name"):
            declare_command("go", handler)
    with pytest.raises(DeclarationError, match="command go: argument value has no type; annotate it"):
        declare_command("go", unannotated)
    with pytest.raises(DeclarationError, match=r"command go: argument value: .* it allows anything"):
        declare_command("go", loose)
