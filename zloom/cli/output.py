"""Printing: text from other machines is made harmless, and tables suit a terminal or a pipe."""

import errno
import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from zloom.cli.streams import writing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

BROKEN_WIDTH = 16
"""Columns of a terminal that cells which may be broken into lines have at least, if they need so many."""

MAX_WORD = 40
"""Columns of a word for which others are left out, rather than that it be broken."""

GAP = 2
"""Blanks between two columns of a table."""

PIPE_WIDTH = 10_000
"""Columns where there is no terminal: nothing is cut or wrapped that a script may want to find."""

# Control characters move the cursor or change the terminal's title; format characters turn text around.
_DANGEROUS = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading, all plain text.

    Attributes:
        columns: The headings.
        rows: Cells, as many as there are columns.
        empty: What is said instead where there are no rows.
        right: Headings of the columns that are flush right.
        whole: Headings of the columns whose cells are never broken into lines.
        spare: Headings of the columns that are left out where there is no room for all, the first one first.
        words: Headings of the columns whose cells are broken between words alone, of `MAX_WORD` at most.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str
    right: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    spare: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()


def clean(text: str) -> str:
    """Return text from another machine, with what a terminal would obey shown as escapes."""
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in _DANGEROUS else char for char in text)


def say(text: str, style: str = "") -> None:
    """Print a line on stdout."""
    _print(text, style, stderr=False)


def complain(text: str) -> None:
    """Print a line on stderr, in red where that is a terminal."""
    _print(f"zloom: {text}", "red", stderr=True)


def remark(text: str) -> None:
    """Print a line on stderr that is no error."""
    _print(text, "dim", stderr=True)


def width() -> int:
    """Return the columns that there are for a table on stdout."""
    return PIPE_WIDTH if sys.stdout is None else _console(stderr=False).width


def say_json(value: object) -> None:
    """Print a value as JSON on stdout: ASCII, so that nothing in it can reach the terminal; NaN is null."""
    with writing():
        print(json.dumps(msgspec.json.decode(msgspec.json.encode(value)), indent=2), flush=True)


def say_json_line(value: object) -> None:
    """Print a value as one line of JSON on stdout, at once."""
    with writing():
        print(json.dumps(msgspec.json.decode(msgspec.json.encode(value))), flush=True)


def fitting(table: Table, width: int) -> Table:
    """Return a table without those of its spare columns for which so many columns of a terminal have no room.

    Half a number would be another number, so columns go as a whole.
    """
    for name in table.spare:
        if sum(_needed(table)) + GAP * (len(table.columns) - 1) <= width:
            break
        if name in table.columns:
            place = table.columns.index(name)
            columns = [*table.columns[:place], *table.columns[place + 1 :]]
            rows = [[*row[:place], *row[place + 1 :]] for row in table.rows]
            table = replace(table, columns=columns, rows=rows)
    return table


def _needed(table: Table) -> Iterator[int]:
    columns = list(zip(table.columns, *table.rows, strict=True))
    words = [
        word for name, *cells in columns if name in table.words for cell in cells for word in cell.split()
    ]
    # Of columns that may be broken the widest are made narrower first, so that all keep what one must have.
    broken = max(BROKEN_WIDTH, min(MAX_WORD, max((len(clean(word)) for word in words), default=0)))
    for name, *cells in columns:
        longest = max(len(clean(cell)) for cell in (name, *cells))
        yield longest if name in table.whole else min(longest, broken)


def show(table: Table) -> None:
    """Print a table on stdout, and on stderr which columns it had no room for."""
    if not table.rows:
        say(table.empty)
        return
    shown = fitting(table, width())
    _show(shown)
    left_out = [name for name in table.columns if name not in shown.columns]
    if left_out:
        remark(f"no room for {', '.join(left_out)}: a wider terminal, a pipe and --json have all columns")


def _show(table: Table) -> None:
    from rich.segment import Segment, Segments
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for name in table.columns:
        justify: Literal["right", "left"] = "right" if name in table.right else "left"
        shown.add_column(Text(name), justify=justify, overflow="fold", no_wrap=name in table.whole)
    for row in table.rows:
        shown.add_row(*(Text(clean(cell)) for cell in row))
    with writing():
        console, segments = _console(stderr=False), list[Segment]()
        for line in console.render_lines(shown, pad=False):
            segments += [*_stripped(line), Segment.line()]
        console.print(Segments(segments), end="")


def _stripped(line: "list[Segment]") -> "list[Segment]":
    """Return a line without the blanks at its end, which fill a cell and say nothing."""
    while line and not line[-1].text.rstrip():
        line = line[:-1]
    return [*line[:-1], line[-1]._replace(text=line[-1].text.rstrip())] if line else []


def _console(*, stderr: bool) -> "Console":
    from rich import console

    class Console(console.Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))  # rich would end the process, with 1

    stream = sys.stderr if stderr else sys.stdout
    if stream is None:  # closed by whoever started the command
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def _print(text: str, style: str, *, stderr: bool) -> None:
    from rich.text import Text

    with writing(stderr=stderr):
        _console(stderr=stderr).print(Text(clean(text), style=style), soft_wrap=True)
