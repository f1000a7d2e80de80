"""Stamps of time where methods of zloom begin or end; zloom itself knows nothing of it.

A process of the bench wraps the methods in question at its start (it monkey-patches them, in this process
alone), before there are any objects. All processes of one Linux machine have the same monotonic clock, so
stamps of several can be put in order.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Stamps = dict[str, list[int]]
"""Nanoseconds on the monotonic clock by the name of a point, ascending."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where stamps are taken.

    Attributes:
        name: Of the point, unique in its process.
        owner: The class, or the module, that has the function itself; not one that inherits it.
        function: Its name.
        after: Stamp its end instead of its beginning.
    """

    name: str
    owner: Any
    function: str
    after: bool = False


def check(points: Iterable[Point]) -> None:
    """See that all functions are there.

    Raises:
        AttributeError: One is not: it was renamed, and whoever measures it must be told.
    """
    for point in points:
        if not callable(vars(point.owner).get(point.function)):
            raise AttributeError(
                f"{point.owner.__name__} has no {point.function} of its own, where the bench takes the "
                f"stamps of '{point.name}'; name what does that now in bench/anatomy_points.py"
            )


def install(points: Iterable[Point]) -> Stamps:
    """Take stamps in this process from now on; returns where they are gathered. There is no way back.

    Raises:
        AttributeError: See `check`; nothing was wrapped.
    """
    points = tuple(points)
    check(points)
    stamps: Stamps = {}
    for point in points:
        times = stamps[point.name] = []
        wrap = _stamped_after if point.after else _stamped
        setattr(point.owner, point.function, wrap(getattr(point.owner, point.function), times))
    return stamps


def save(stamps: Stamps, file: Path) -> None:
    """Write stamps for another process."""
    file.write_text(json.dumps(stamps))


def load(files: Iterable[Path]) -> Stamps:
    """Read the stamps of several processes.

    Raises:
        TimeoutError: A process left none.
    """
    stamps: Stamps = {}
    for file in files:
        if not file.exists():
            raise TimeoutError(f"the {file.stem} ended without leaving its stamps")
        stamps |= json.loads(file.read_text())
    return stamps


def _stamped(function: Callable[..., Any], times: list[int]) -> Callable[..., Any]:
    @functools.wraps(function)  # handlers are asked for their signature
    def stamped(*arguments: Any, **options: Any) -> Any:
        times.append(time.monotonic_ns())
        return function(*arguments, **options)

    return stamped


def _stamped_after(function: Callable[..., Any], times: list[int]) -> Callable[..., Any]:
    @functools.wraps(function)
    def stamped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        finally:
            times.append(time.monotonic_ns())

    return stamped
