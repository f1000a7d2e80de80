"""Markers on methods, and how they are found."""

import subprocess
import sys
from typing import Any

import pytest

from zloom.errors import DeclarationError
from zloom.markers import UNSET, CommandMarker, ConfigMarker, find_marked, on_command, on_config
from zloom.weavelet import Weavelet


class Base:
    @on_config("sync_every", initial=4, description="Steps between two syncs")
    def set_sync_every(self, value: int) -> None:
        self.sync_every = value

    @property
    def broken(self) -> int:
        raise RuntimeError("a property of a LightningModule without a Trainer")

    @on_command("flush")
    def flush(self, depth: int = 1) -> str:
        return f"flushed {depth}"


class Derived(Base):
    @on_config("rank", get=lambda self: self.rank, ready=lambda self, value: self.rank > value)
    def set_rank(self, value: int) -> None:
        self.rank = value

    def flush(self, depth: int = 2) -> str:
        return f"derived {depth}"


class Replaced(Base):
    @on_config("sync_every", initial=8)
    def set_sync_every(self, value: int) -> None:
        self.sync_every = -value


def test_marked_methods_are_found_bound_and_properties_are_not_read() -> None:
    owner = Base()
    (config, set_sync), (command, flush) = find_marked(owner)
    assert config == ConfigMarker("sync_every", 4, None, "Steps between two syncs", None)
    assert command == CommandMarker("flush", "")
    set_sync(7)
    assert owner.sync_every == 7
    assert flush() == "flushed 1"


def test_an_override_keeps_the_marker_and_the_base_comes_first() -> None:
    owner = Derived()
    owner.rank = 3
    found = find_marked(owner)
    assert [getattr(marker, "key", None) or getattr(marker, "name", "") for marker, _ in found] == [
        "sync_every",
        "flush",
        "rank",
    ]
    assert found[1][1]() == "derived 2"
    marker = found[2][0]
    assert isinstance(marker, ConfigMarker)
    assert marker.initial is UNSET
    assert marker.get is not None
    assert marker.get(owner) == 3
    assert marker.ready is not None
    assert marker.ready(owner, 2)
    assert not marker.ready(owner, 3)


def test_an_override_with_a_marker_of_its_own_wins() -> None:
    owner = Replaced()
    marker, handler = find_marked(owner)[0]
    assert isinstance(marker, ConfigMarker)
    assert marker.initial == 8
    handler(3)
    assert owner.sync_every == -3


def test_a_key_needs_exactly_one_baseline() -> None:
    with pytest.raises(DeclarationError, match="either initial= or get="):
        on_config("key")
    with pytest.raises(DeclarationError, match="either initial= or get="):
        on_config("key", initial=1, get=lambda _: 1)
    on_config("key", initial=None)


def test_the_module_needs_neither_torch_nor_lightning() -> None:
    code = "import sys, zloom.markers; print({'torch', 'lightning', 'zmq', 'asyncio'} & sys.modules.keys())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "set()"


def test_a_decorator_without_its_arguments_is_refused() -> None:
    weavelet = Weavelet("run", rank=0, world_size=1)
    decorators: list[Any] = [on_command, on_config, weavelet.on_command, weavelet.on_config]
    for decorator in decorators:
        with pytest.raises(DeclarationError, match=f"{decorator.__name__} takes a name: write @"):
            decorator(lambda self: None)
