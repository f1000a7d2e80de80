"""Reads a guard: `loss > 2 * baseline or loss is nan within 200 steps`. By hand, and never evaluated as code.

guard      = condition "within" steps "steps"
condition  = all { "or" all }
all        = claim { "and" claim }
claim      = sum ( "<" | "<=" | ">" | ">=" ) sum | sum "is" "nan" | "(" condition ")"
sum        = product { ( "+" | "-" ) product }
product    = factor { ( "*" | "/" ) factor }
factor     = "-" factor | number | metric | "baseline" | "(" sum ")"
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from zloom.errors import Refused
from zloom.words import did_you_mean
from zloom_broker.guard_conditions import (
    COMPARATORS,
    NAME,
    WORDS,
    All,
    Any,
    Arithmetic,
    Baseline,
    Comparison,
    Condition,
    Guard,
    Metric,
    Negative,
    Node,
    NotFinite,
    Number,
    Term,
    has_baseline,
    metrics,
)

MAX_LENGTH = 300
"""Characters of a guard: it stands in history, and its tree is walked for each point that is reported."""

MAX_DEPTH = 20
"""Parentheses and signs inside each other: reading one must not exhaust the stack."""

MAX_CLAIMS = 10
"""Comparisons of a guard: each is looked at for each point, and meanwhile nobody else is answered."""

MAX_STEPS = 10**12
"""Steps of `within`: a step must still fit into a message."""

MAX_KNOWN = 20
"""Metrics that a refusal lists."""

_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>{NAME})
    |(?P<sign><=|>=|[-<>+*/()])
    |(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<other>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_END = "the end"


class _Token(NamedTuple):
    kind: str | None
    text: str
    column: int


def parse(text: str) -> Guard:
    """Return the guard of a text.

    Raises:
        Refused: `bad_guard`; its text begins with `column N: `, counted from 1, and says what was expected.
    """
    return _Parser(text).guard()


def check(text: str, known: Iterable[str]) -> Guard:
    """Return the guard of a text, if it names no metrics but the known ones; any, where none are known.

    Raises:
        Refused: As `parse`.
    """
    parser = _Parser(text)
    guard = parser.guard()
    names = sorted(known)
    for name, column in parser.metrics.items():
        if names and name not in names:
            raise _refused(column, _unknown(name, names))
    return guard


def _unknown(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    hint += "for a division put blanks around the slash; " if "/" in name else ""
    more = f", and {len(known) - MAX_KNOWN} more" if len(known) > MAX_KNOWN else ""
    return f"unknown metric {name!r}; {hint}known are: {', '.join(known[:MAX_KNOWN])}{more}"


def _refused(column: int, text: str) -> Refused:
    return Refused("bad_guard", f"column {column}: {text}")


def _tokens(text: str) -> list[_Token]:
    found = [
        _Token(each.lastgroup, each[each.lastgroup or 0], each.start(each.lastgroup or 0) + 1)
        for each in _TOKEN.finditer(text)
    ]
    return [*found, _Token(None, "", len(text.rstrip()) + 1)]


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise _refused(MAX_LENGTH + 1, f"the guard has {len(text)} characters; at most {MAX_LENGTH}")
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = self._claims = 0
        self.metrics: dict[str, int] = {}
        """Column of the first mention of each."""
        self._baseline: _Token | None = None
        """The newest one."""

    def guard(self) -> Guard:
        condition = self._claimed(self._condition())
        self._expect("within", "'and', 'or' or 'within'")
        within = self._steps()
        if not self._take("steps"):
            self._expect("step", "'steps'")
        if self._token.kind is not None:
            raise self._expected(_END)
        return Guard(condition, within)

    # --- tokens -----------------------------------------------------------------------------------

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _is(self, *texts: str) -> bool:
        return self._token.kind in ("word", "sign") and self._token.text in texts

    def _take(self, *texts: str) -> str:
        """Step over the token and return it if it is one of these; else return nothing."""
        if not self._is(*texts):
            return ""
        self._next += 1
        return self._tokens[self._next - 1].text

    def _expect(self, text: str, expected: str) -> None:
        if not self._take(text):
            raise self._expected(expected)

    def _expected(self, what: str, token: _Token | None = None) -> Refused:
        token = token or self._token
        found = _END if token.kind is None else repr(token.text)
        return _refused(token.column, f"expected {what}, found {found}")

    # --- conditions -------------------------------------------------------------------------------

    def _condition(self) -> Node:
        """Read a condition; or a term, which a parenthesis may hold as well."""
        first = self._all()
        return Any(self._joined("or", first, self._all)) if self._is("or") else first

    def _all(self) -> Node:
        first = self._claim()
        return All(self._joined("and", first, self._claim)) if self._is("and") else first

    def _joined(self, word: str, first: Node, read: Callable[[], Node]) -> tuple[Condition, ...]:
        parts = [self._claimed(first)]
        while self._take(word):
            parts.append(self._claimed(read()))
        return tuple(parts)

    def _claimed(self, node: Node) -> Condition:
        """Return a condition; where a term stands, its comparison is missing."""
        if isinstance(node, Condition):
            return node
        raise self._expected("a comparison: <, <=, >, >= or 'is nan'")

    def _claim(self) -> Node:
        begin = self._token
        left = self._sum()
        sign = self._take(*COMPARATORS)
        if sign:
            middle = self._token
            claim: Comparison | NotFinite = Comparison(
                sign, self._counted(left, begin), self._counted(self._sum(), middle)
            )
        elif self._take("is"):
            self._expect("nan", "'nan'")
            claim = NotFinite(self._counted(left, begin))
        else:
            return left
        self._claims += 1
        if self._claims > MAX_CLAIMS:
            raise self._expected(f"at most {MAX_CLAIMS} comparisons", begin)
        names = metrics(claim)
        if not names:
            raise self._expected("a comparison that names a metric", begin)
        if has_baseline(claim) and len(names) > 1:
            raise self._expected(
                "'baseline' beside one metric only, which is the one it is of", self._baseline
            )
        return claim

    # --- terms ------------------------------------------------------------------------------------

    def _counted(self, node: Node, begin: _Token) -> Term:
        """Return a term; a condition cannot be compared, or counted with."""
        if isinstance(node, Term):
            return node
        raise self._expected("a number or a metric, not a condition in parentheses", begin)

    def _sum(self) -> Node:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Node:
        return self._chain(self._factor, "*", "/")

    def _chain(self, read: Callable[[], Node], *signs: str) -> Node:
        begin = self._token
        node = read()
        while sign := self._take(*signs):
            after = self._token
            node = Arithmetic(sign, self._counted(node, begin), self._counted(read(), after))
        return node

    def _factor(self) -> Node:
        begin = self._token
        if self._is("-", "("):
            return self._nested()
        if begin.kind == "word" and begin.text not in WORDS:
            return self._metric(begin.text)
        if begin.kind == "quoted":
            return self._metric(_ESCAPED.sub(r"\1", begin.text[1:-1]))
        if begin.kind == "number" and math.isfinite(float(begin.text)):
            self._next += 1
            return Number(float(begin.text))
        if self._take("baseline"):
            self._baseline = begin
            return Baseline()
        raise self._expected("a metric, a number, 'baseline' or '('")

    def _metric(self, name: str) -> Metric:
        self.metrics.setdefault(name, self._token.column)
        self._next += 1
        return Metric(name)

    def _nested(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._expected(f"at most {MAX_DEPTH} parentheses and signs inside each other")
        if self._take("-"):
            after = self._token
            node: Node = Negative(self._counted(self._factor(), after))
        else:
            self._expect("(", "'('")
            node = self._condition()
            self._expect(")", "')'")
        self._depth -= 1
        return node

    def _steps(self) -> int:
        token = self._token
        whole = token.kind == "number" and token.text.isdecimal()
        if not whole or not 1 <= int(token.text) <= MAX_STEPS:
            raise self._expected("a whole number of steps, 1 at least")
        self._next += 1
        return int(token.text)
