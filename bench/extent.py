"""How much a bench measures, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Extent:
    """What all benches are told.

    Attributes:
        rounds: How often it is each contender's turn.
        quick: Only show that everything works; the figures mean little.
        large: Sizes too that take minutes each.
        folder: For journals, on a real disk; absolute.
        say: Takes a line on how far it is.
    """

    rounds: int
    quick: bool
    large: bool
    folder: Path
    say: Callable[[str], object]
