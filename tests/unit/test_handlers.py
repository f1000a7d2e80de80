import traceback
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zloom.errors import CannotSteer, DeclarationError, UndoError
from zloom.handlers import UNDECLARED, Applied, Registry, Rejected
from zloom.messages import Failure
from zloom.model import Revision, Value
from zloom.schema import Meta

Rate = Annotated[float, Meta(gt=0, le=1)]


class State:
    """A trainer whose every key is an attribute of `now`, and which notes the calls of its handlers."""

    def __init__(self) -> None:
        self.now: dict[str, object] = {}
        self.calls: list[str] = []

    def setter(self, name: str, fails: Callable[[Any], bool] = lambda _: False) -> Callable[[int], None]:
        def set_value(value: int) -> None:
            if fails(value):
                raise ValueError(f"not {value}")
            self.calls.append(f"{name}={value}")
            self.now[name] = value

        return set_value

    def undoing(self, name: str) -> Callable[[int], Callable[[], None]]:
        def set_value(value: int) -> Callable[[], None]:
            old = self.now[name]
            self.now[name] = value
            self.calls.append(f"{name}={value}")
            return lambda: undo(old)

        def undo(old: object) -> None:
            self.now[name] = old
            self.calls.append(f"undo {name}")

        return set_value


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def registry(state: State) -> Registry:
    """Keys a, b, c: a by its old value, b by an undo, c refuses numbers above 100."""
    registry = Registry()
    state.now = {"a": 0, "b": 0, "c": 0}
    registry.add_key("a", state.setter("a"), initial=0)
    registry.add_key("b", state.undoing("b"), initial=0)
    registry.add_key("c", state.setter("c", lambda value: value > 100), initial=0)
    return registry


def test_keys_run_in_the_order_of_declaration(registry: Registry, state: State) -> None:
    assert registry.apply({"c": 3, "a": 1, "b": 2}) == Applied()
    assert state.calls == ["a=1", "b=2", "c=3"]
    assert registry.values == {"a": 1, "b": 2, "c": 3}


def test_only_declared_keys_run(registry: Registry) -> None:
    assert registry.apply({"elsewhere": 1, "a": 1}) == Applied()
    assert registry.apply({"elsewhere": 1}) == Rejected(UNDECLARED)
    assert registry.apply({}) == Rejected(UNDECLARED)
    assert registry.values == {"a": 1, "b": 0, "c": 0}


def test_all_values_are_checked_before_the_first_handler_runs(registry: Registry, state: State) -> None:
    assert registry.apply({"a": 1, "c": 2.5}) == Rejected("c: expected integer, got 2.5")
    assert state.calls == []


def test_what_ran_is_undone_in_reverse_when_a_handler_raises(registry: Registry, state: State) -> None:
    registry.apply({"a": 1, "b": 1, "c": 1})
    state.calls.clear()
    assert registry.apply({"a": 2, "b": 2, "c": 101}) == Rejected("c: ValueError: not 101")
    assert state.calls == ["a=2", "b=2", "undo b", "a=1"]
    assert state.now == registry.values == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_an_undo_that_raises_surfaces_after_the_others_ran(
    error: type[BaseException], registry: Registry, state: State
) -> None:
    def break_undo(value: int) -> Callable[[], None]:
        def undo() -> None:
            raise error("disk")

        return undo

    registry.add_key("b", break_undo, initial=0)
    with pytest.raises(UndoError, match=f"b: {error.__name__}: disk") as caught:
        registry.apply({"a": 2, "b": 2, "c": 101})
    assert isinstance(caught.value.__cause__, error)
    assert isinstance(caught.value.__context__, ValueError)
    assert state.now["a"] == 0


def test_a_keyboard_interrupt_passes_through_after_undoing(registry: Registry, state: State) -> None:
    def interrupt(value: int) -> None:
        raise KeyboardInterrupt

    registry.add_key("c", interrupt, initial=0)
    with pytest.raises(KeyboardInterrupt):
        registry.apply({"a": 2, "b": 2, "c": 2})
    assert state.now == registry.values == {"a": 0, "b": 0, "c": 0}


@given(
    updates=st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 200) | st.floats()), max_size=8
    )
)
def test_the_trainer_is_always_at_the_values_of_the_applied_updates(updates: list[dict[str, Any]]) -> None:
    state, registry = State(), Registry()
    state.now = {"a": 0, "b": 0, "c": 0}
    registry.add_key("b", state.undoing("b"), initial=0)
    registry.add_key("a", state.setter("a", lambda value: value == 13), initial=0)
    registry.add_key("c", state.setter("c", lambda value: value > 100), initial=0)
    for changes in updates:
        before = registry.values
        declared = {name: value for name, value in changes.items() if name in before}
        fits = all(type(value) is int for value in declared.values())
        if declared and fits and declared.get("a") != 13 and declared.get("c", 0) <= 100:
            assert registry.apply(changes) == Applied()
            assert registry.values == {**before, **declared}
        else:
            assert isinstance(registry.apply(changes), Rejected)
            assert registry.values == before
        assert state.now == registry.values


def test_check_runs_nothing(registry: Registry, state: State) -> None:
    assert registry.check({"a": 1, "elsewhere": 2}) is None
    assert registry.check({"a": "x"}) == "a: expected integer, got 'x'"
    assert registry.check({"elsewhere": 2}) == UNDECLARED
    assert state.calls == []


def test_a_key_declared_again_keeps_its_place_and_begins_at_its_baseline(registry: Registry) -> None:
    registry.apply({"a": 5, "b": 5})
    version = registry.version
    taken: list[float] = []

    def set_rate(value: Rate) -> None:
        taken.append(value)

    registry.add_key("a", set_rate, initial=0.5)
    assert registry.version == version + 1
    assert list(registry.values) == ["a", "b", "c"]
    assert registry.values == {"a": 0.5, "b": 5, "c": 0}
    assert registry.apply({"a": 1}) == Applied()
    assert taken == [1.0]


def test_a_refused_declaration_changes_nothing(registry: Registry) -> None:
    version, keys = registry.version, registry.keys()
    with pytest.raises(DeclarationError):
        registry.add_key("a", lambda value: None, initial=None)
    assert (registry.version, registry.keys()) == (version, keys)


def test_a_handler_may_declare_keys_while_it_runs(registry: Registry, state: State) -> None:
    def swap(value: int) -> None:
        registry.add_key("c", state.setter("c"), initial=7)
        registry.add_key("d", state.setter("d"), initial=1)

    registry.add_key("a", swap, initial=0)
    assert registry.apply({"a": 1, "b": 2}) == Applied()
    assert registry.values == {"a": 1, "b": 2, "c": 7, "d": 1}


class Mute(Exception):
    """One of which no text can be made."""

    def __str__(self) -> str:
        raise ValueError("mute")


def test_g8_what_a_handler_raises_or_returns_may_have_no_text() -> None:
    registry = Registry()

    def fail(value: int) -> None:
        raise Mute

    registry.add_key("a", fail, initial=0)

    def go() -> Mute:
        return Mute()

    registry.add_command("go", go)
    mute = "<a Mute, of which no text can be made: ValueError>"
    assert registry.apply({"a": 1}) == Rejected(f"a: Mute: {mute}")
    assert registry.run("go", {}) == Applied(mute), "it was carried out"


def test_a_description_is_made_such_that_a_message_can_hold_it() -> None:
    registry = Registry()
    registry.add_key("a", lambda value: None, initial=0, description="a file \udcff")
    registry.add_command("go", lambda: None, description="of \udcff")
    assert (registry.keys()[0].description, registry.commands()[0].description) == ("a file ?", "of ?")


def test_a_handler_that_changes_its_value_does_not_change_the_registry() -> None:
    registry = Registry()

    def take(value: list[int]) -> None:
        value.append(0)

    registry.add_key("sizes", take, initial=[1])
    registry.apply({"sizes": [2, 3]})
    assert registry.values == {"sizes": [2, 3]}


def test_differing_compares_values_as_the_type_reads_them() -> None:
    registry = Registry()

    def set_rate(value: Rate) -> None: ...

    registry.add_key("rate", set_rate, initial=1.0)
    assert registry.differing({"rate": 1, "elsewhere": 2}) == {}
    assert registry.differing({"rate": 0.5}) == {"rate": 0.5}
    assert registry.differing({"rate": "x"}) == {"rate": "x"}


def test_a_command_runs_with_its_arguments_by_name() -> None:
    registry = Registry()

    def save(path: str, copies: int = 1) -> str:
        return f"{path} x {copies}"

    registry.add_command("save", save)
    assert registry.run("save", {"path": "a.ckpt"}) == Applied("a.ckpt x 1")
    assert registry.run("save", {"path": "a.ckpt", "copies": 2}) == Applied("a.ckpt x 2")
    assert registry.run("save", {}) == Rejected("save: path: expected string, got nothing")
    assert registry.run("load", {}) == Rejected(UNDECLARED)
    assert [command.name for command in registry.commands()] == ["save"]


def test_a_command_that_raises_is_rejected() -> None:
    registry = Registry()

    def fail() -> None:
        raise OSError("disk full")

    registry.add_command("fail", fail)
    assert registry.run("fail", {}) == Rejected("fail: OSError: disk full")


def test_what_raised_is_told_with_where() -> None:
    told: list[tuple[str, BaseException]] = []
    registry = Registry(lambda what, error: told.append((what, error)))

    def fail(value: int = 0) -> None:
        raise OSError("disk full")

    registry.add_key("rate", fail, initial=1)
    registry.add_command("save", fail)
    registry.apply({"rate": 2})
    registry.run("save", {})
    registry.run("save", {"value": "x"})  # refused before it is called
    assert [what for what, _ in told] == ["the handler of rate", "the command save"]
    assert {traceback.extract_tb(error.__traceback__)[-1].name for _, error in told} == {"fail"}


def test_what_a_handler_refuses_is_told_in_its_own_words() -> None:
    told: list[str] = []
    registry = Registry(lambda what, _: told.append(what))

    def refuse(value: int) -> None:
        raise CannotSteer("two optimizers; name one")

    registry.add_key("rate", refuse, initial=1)
    assert registry.apply({"rate": 2}) == Rejected("rate: two optimizers; name one")
    assert told == []


def test_a_command_that_returns_nothing_has_no_detail() -> None:
    registry = Registry()
    registry.add_command("go", lambda: None)
    assert registry.run("go", {}) == Applied("")


def config(mode: Any = "next", **changes: Value) -> Revision:
    return Revision(1, "config", changes, mode=mode)


def test_a_revision_is_ready_when_all_that_it_concerns_is() -> None:
    registry, open_ = Registry(), {"a": True, "go": False}
    registry.add_key("a", lambda value: None, initial=0, ready=lambda value: open_["a"])
    registry.add_key("b", lambda value: None, initial=0)
    registry.add_command("go", lambda: None, ready=lambda: open_["go"])
    assert registry.is_ready(config(a=1, b=1))
    assert not registry.is_ready(Revision(1, "command", command="go"))
    open_.update(a=False, go=True)
    assert not registry.is_ready(config(a=1, b=1))
    assert registry.is_ready(config(b=1))
    assert registry.is_ready(config(elsewhere=1))
    assert registry.is_ready(Revision(1, "command", command="go"))
    assert registry.is_ready(Revision(1, "command", command="elsewhere"))


def test_readiness_is_asked_for_the_value_as_the_handler_takes_it() -> None:
    registry, asked = Registry(), []

    def is_even(value: float) -> bool:
        asked.append(value)
        return value % 2 == 0

    def set_window(value: float) -> None: ...

    registry.add_key("window", set_window, initial=1, ready=is_even)
    assert registry.is_ready(config(window=4))
    assert not registry.is_ready(config(window=3))
    assert [type(value) for value in asked] == [float, float]


def test_a_value_that_cannot_be_taken_does_not_wait_for_its_place() -> None:
    registry = Registry()
    registry.add_key("window", lambda value: None, initial=1, ready=lambda value: False)
    assert registry.is_ready(config(window="wide"))
    assert isinstance(registry.apply({"window": "wide"}), Rejected)


def test_only_an_update_that_asks_for_it_on_keys_that_allow_it_is_immediate() -> None:
    registry = Registry()
    registry.add_key("now", lambda value: None, initial=0, immediate=True)
    registry.add_key("later", lambda value: None, initial=0)
    assert registry.is_immediate(config("immediate", now=1))
    assert registry.is_immediate(config("immediate", now=1, elsewhere=1))
    assert not registry.is_immediate(config("next", now=1))
    assert not registry.is_immediate(config("immediate", now=1, later=1))
    assert not registry.is_immediate(config("immediate", elsewhere=1))
    assert not registry.is_immediate(Revision(1, "command", command="now", mode="immediate"))


def test_failure_handlers_are_kept_in_order() -> None:
    registry, told = Registry(), []
    registry.add_failure(lambda failure: told.append(("first", failure.device)))
    registry.add_failure(lambda failure: told.append(("second", failure.device)))
    for handler in registry.failures:
        handler(Failure(id=1, kind="device", device="GPU-1"))
    assert told == [("first", "GPU-1"), ("second", "GPU-1")]
