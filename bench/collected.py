"""Values of several rounds, put together into figures."""

from bench.results import Figure


class Collected:
    """The figures of one bench, whose rounds come in one value at a time.

    Args:
        bench: Its name.
    """

    def __init__(self, bench: str) -> None:
        self._bench = bench
        self._rounds: dict[tuple[str, str, str, str], list[float]] = {}

    def add(self, case: str, what: str, unit: str, contender: str, value: float) -> None:
        """Take in what one round found; see `Figure`."""
        self._rounds.setdefault((case, what, unit, contender), []).append(round(value, 3))

    def figures(self) -> list[Figure]:
        """Return all that was taken in, in the order in which it first came."""
        return [Figure(self._bench, *key, rounds) for key, rounds in self._rounds.items()]
