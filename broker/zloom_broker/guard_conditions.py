"""What a guard says, as a tree: printed, and held against what was measured. `guard_grammar` reads one.

A comparison with a metric that is NaN holds: who wants a loss to stay below a bound does not want it lost.
One with a metric that was not reported, or a baseline that is not known, does not.
"""

import math
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType

WORDS = frozenset({"and", "or", "is", "nan", "baseline", "within", "steps", "step"})
"""What means something in a guard, so that a metric of that name stands in quotes."""

NAME = r"[^\W\d]\w*(?:[.:@]\w+|/[^\W\d]\w*)*"
"""A metric's name without quotes. A slash between letters belongs to it; `loss/2` is a division."""

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
COMPARATORS = frozenset(_OPERATORS)

Values = Mapping[str, float]
"""By metric."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number; finite, and not negative."""

    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """The newest value of a metric."""

    name: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the only metric of the comparison was before the change."""


@dataclass(frozen=True, slots=True)
class Negative:
    """A term with its sign turned."""

    term: "Term"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two terms; `sign` is one of + - * /."""

    sign: str
    left: "Term"
    right: "Term"


Term = Number | Metric | Baseline | Negative | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two terms; `sign` is one of `COMPARATORS`."""

    sign: str
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class NotFinite:
    """`is nan`: the term is NaN or infinite."""

    term: Term


@dataclass(frozen=True, slots=True)
class All:
    """Conditions joined by `and`, two at least."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """Conditions joined by `or`, two at least."""

    parts: tuple["Condition", ...]


Condition = Comparison | NotFinite | All | Any
Node = Term | Condition


@dataclass(frozen=True, slots=True)
class Guard:
    """When a change is reverted."""

    condition: Condition
    within: int
    """Steps from the one on at which it was applied."""


# --- what it names ------------------------------------------------------------------------------


def _inside(node: Node) -> tuple[Node, ...]:
    match node:
        case All(parts) | Any(parts):
            return parts
        case Comparison(_, left, right) | Arithmetic(_, left, right):
            return left, right
        case NotFinite(term) | Negative(term):
            return (term,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all that are inside of it, from left to right."""
    yield node
    for each in _inside(node):
        yield from walk(each)


def metrics(node: Node) -> set[str]:
    """Return the names of the metrics."""
    return {each.name for each in walk(node) if isinstance(each, Metric)}


def has_baseline(node: Node) -> bool:
    """Whether a baseline is needed."""
    return any(isinstance(each, Baseline) for each in walk(node))


def measured(node: Node) -> set[str]:
    """Return the names of the metrics whose baseline is needed."""
    claims = (each for each in walk(node) if isinstance(each, Comparison | NotFinite))
    return {name for each in claims if has_baseline(each) for name in metrics(each)}


# --- printed ------------------------------------------------------------------------------------

_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}
_SIGN_STRENGTH = 3


def printed(guard: Guard) -> str:
    """Return the guard as text that reads as the same guard."""
    return f"{_condition(guard.condition)} within {guard.within} step{'s' * (guard.within != 1)}"


def _condition(node: Condition) -> str:
    match node:
        case Any(parts):
            # One inside another is another tree than one with more parts.
            return " or ".join(_grouped(each, Any) for each in parts)
        case All(parts):
            return " and ".join(_grouped(each, All | Any) for each in parts)
        case Comparison(sign, left, right):
            return f"{_term(left)} {sign} {_term(right)}"
        case NotFinite(term):
            return f"{_term(term)} is nan"


def _grouped(node: Condition, kinds: type | UnionType) -> str:
    return f"({_condition(node)})" if isinstance(node, kinds) else _condition(node)


def _term(node: Term, strength: int = 0, values: Values | None = None, baseline: float | None = None) -> str:
    """Print a term as part of one that binds so strongly; with `values` as what they are."""
    match node:
        case Number(value):
            return number(value)
        case Metric(name):
            return quoted(name) if values is None else _signed(values[name], strength)
        case Baseline():
            return "baseline" if baseline is None else _signed(baseline, strength)
        case Negative(term):
            return f"-{_term(term, _SIGN_STRENGTH, values, baseline)}"
        case Arithmetic(sign, left, right):
            own = _STRENGTH[sign]
            first = _term(left, own, values, baseline)
            text = f"{first} {sign} {_term(right, own + 1, values, baseline)}"
            return f"({text})" if own < strength else text


def quoted(name: str) -> str:
    """Return a metric's name as a guard says it."""
    if re.fullmatch(NAME, name) and name not in WORDS:
        return name
    inside = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{inside}'"


def number(value: float) -> str:
    """Return a number in few characters, but none too few to tell it from others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _signed(value: float, strength: int) -> str:
    text = f"{value:.6g}"
    return f"({text})" if strength and text.startswith("-") else text


# --- held against what was measured ---------------------------------------------------------------


def why(condition: Condition, values: Values, baselines: Values) -> str:
    """Return in words why a condition holds, such as `loss was 5.1 > 2 * 2.3`; empty when it does not.

    Args:
        condition: Of a guard.
        values: The newest value of each metric.
        baselines: What each was before the change.
    """
    match condition:
        case All(parts):
            reasons = [why(each, values, baselines) for each in parts]
            return " and ".join(reasons) if all(reasons) else ""
        case Any(parts):
            return next(filter(None, (why(each, values, baselines) for each in parts)), "")
        case Comparison() | NotFinite():
            return _why(condition, values, baselines)


def _why(claim: Comparison | NotFinite, values: Values, baselines: Values) -> str:
    names = metrics(claim)
    baseline = baselines.get(next(iter(names))) if has_baseline(claim) else None
    if not names <= values.keys() or (has_baseline(claim) and baseline is None):
        return ""
    lost = sorted(name for name in names if math.isnan(values[name]))
    if lost:
        return f"{quoted(lost[0])} was nan"
    if isinstance(claim, NotFinite):
        result = _value(claim.term, values, baseline)
        return "" if math.isfinite(result) else f"{_term(claim.term)} was {result:.6g}"
    left, right = (_value(each, values, baseline) for each in (claim.left, claim.right))
    if not _OPERATORS[claim.sign](left, right):
        return ""
    return f"{_term(claim.left)} was {left:.6g} {claim.sign} {_term(claim.right, 0, values, baseline)}"


def _value(node: Term, values: Values, baseline: float | None) -> float:
    match node:
        case Number(value):
            return value
        case Metric(name):
            return values[name]
        case Baseline():
            return math.nan if baseline is None else baseline
        case Negative(term):
            return -_value(term, values, baseline)
        case Arithmetic(sign, left, right):
            return _calculated(sign, _value(left, values, baseline), _value(right, values, baseline))


def _calculated(sign: str, left: float, right: float) -> float:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    if right:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
