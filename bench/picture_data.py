"""What the pictures of a saved run show, as numbers: curves of latency, fan-out and steps."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import cuda_steps, fanout, histograms, steps
from bench.percentiles import Spread, ratio, spread
from bench.results import Figure, Run

Curve = list[tuple[float, float]]
"""Percent of the samples, and the milliseconds that so many do not exceed."""

BASES = {steps.STEERED: steps.LIGHTNING}
"""With whom a training is compared, where it is not the bare loop; they are not drawn themselves."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Latencies under the same conditions, by contender."""

    title: str
    curves: dict[str, Curve]


@dataclass(frozen=True, slots=True)
class Share:
    """The steps of a training as a share of another's of the same round, of all rounds."""

    case: str
    contender: str
    spread: Spread


def latency(run: Run) -> list[Panel]:
    """Return the curves over tcp with an idle training: of the closed loop, then of each rate.

    Raises:
        ImportError: The package `hdrhistogram`, in which the run has them, is not installed.
    """
    closed: dict[str, str] = {
        each.contender: each.histogram for each in run.round_trips if _is_closed(each.transport, each.load)
    }
    found = {"each after the answer to the last (closed loop)": closed}
    for each in run.open_loop:
        found.setdefault(f"{each.rate} a second (open loop)", {})[each.contender] = each.histogram
    return [Panel(title, _curves(encoded)) for title, encoded in found.items() if any(encoded.values())]


def _is_closed(transport: str, load: str) -> bool:
    return (transport, load) == ("tcp", "idle")


def _curves(encoded: dict[str, str]) -> dict[str, Curve]:
    return {who: histograms.curve(histogram) for who, histogram in encoded.items() if histogram}


def fan_out(run: Run) -> dict[str, list[tuple[int, Spread]]]:
    """Return the milliseconds until all outcomes by contender, over the number of weavelets."""
    found: dict[str, list[tuple[int, Spread]]] = {}
    for each in run.figures:
        if each.bench == fanout.NAME and each.what == fanout.TIME:
            size = int(each.case.split()[0])
            found.setdefault(each.contender, []).append((size, spread(each.rounds)))
    return {contender: sorted(points, key=lambda point: point[0]) for contender, points in found.items()}


def shares(run: Run, bench: str) -> list[Share]:
    """Return the steps of all but the bare loop as shares of its, of a bench of steps.

    Who broke off before the loop did is left out.
    """
    of_steps = (each for each in run.figures if (each.bench, each.what) == (bench, steps.WHAT))
    figures = {(each.case, each.contender): each for each in of_steps}
    found = []
    for (case, contender), figure in figures.items():
        base = figures.get((case, BASES.get(contender, steps.BARE)))
        if base is not None and contender not in (steps.BARE, *BASES.values()) and _comparable(figure, base):
            found.append(Share(case, contender, ratio(figure.rounds, base.rounds)))
    return found


def _comparable(figure: Figure, base: Figure) -> bool:
    return len(figure.rounds) == len(base.rounds) and all(base.rounds)


def _has_latency(run: Run) -> bool:
    closed = (each.histogram for each in run.round_trips if _is_closed(each.transport, each.load))
    return any(closed) or any(each.histogram for each in run.open_loop)


PICTURES: dict[str, Callable[[Run], bool]] = {
    "latency": _has_latency,
    "fanout": lambda run: bool(fan_out(run)),
    "steps": lambda run: bool(shares(run, steps.NAME)),
    "cuda": lambda run: bool(shares(run, cuda_steps.NAME)),
}
"""By the name of a picture: whether a run has what it shows."""


def names(run: Run) -> list[str]:
    """Return the pictures that can be drawn of a run."""
    return [name for name, has_data in PICTURES.items() if has_data(run)]
