"""Keys that get to their new value step by step. Pure.

The value at a step is a function of the ramp, the step at which it began and the value that was in force
then, and of nothing else: ranks that begin at one step stay equal without a word between them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zloom.errors import SettingsError
from zloom.handlers import Applied, Registry, Rejected
from zloom.model import Ramp, RampState, Revision, Value
from zloom.outcome_table import sendable
from zloom.schema import is_number

Number = int | float


def value_at(ramp: Ramp, start: Number, end: Number, elapsed: int) -> Number:
    """Return the value of a ramp so many steps after it began; before that it is `start`.

    An integer when both ends are, rounded to the nearest.
    """
    if elapsed >= ramp.steps:
        return end
    share = max(0, elapsed) / ramp.steps
    if ramp.shape == "cosine":
        share = (1.0 - math.cos(math.pi * share)) / 2.0
    # Rounding must not lead beyond an end, which may be a bound of the key.
    value = min(max(start + (end - start) * share, min(start, end)), max(start, end))
    return round(value) if isinstance(start, int) and isinstance(end, int) else value


@dataclass(slots=True)
class _Running:
    """A ramp that began."""

    ramp: Ramp
    revision: int
    first: int
    """The step at which it began."""
    start: Number
    end: Number
    value: Number
    error: str = ""

    @property
    def state(self) -> RampState:
        until = self.first + self.ramp.steps
        return RampState(self.revision, self.value, self.end, until, self.error)

    @property
    def goes_on(self) -> bool:
        return not self.error and self.value != self.end


class Ramps:
    """The ramps of one replica. `states` and `check` may be used from any thread, the rest is the training's.

    Args:
        registry: Carries the changes out.
        warn: Takes a text for the trainer's log.
    """

    def __init__(self, registry: Registry, warn: Callable[[str], object]) -> None:
        self._registry = registry
        self._warn = warn
        # Replaced and never changed in place, so that another thread may read it.
        self._ramps: dict[str, _Running] = {}

    def __bool__(self) -> bool:
        """Whether one is under way."""
        return any(ramp.goes_on for ramp in self._ramps.values())

    @property
    def states(self) -> dict[str, RampState]:
        """By key: the ramps that are under way, and those that ended because a handler raised."""
        ramps = self._ramps
        return {name: ramp.state for name, ramp in ramps.items() if ramp.goes_on or ramp.error}

    def check(self, revision: Revision) -> str | None:
        """Return why `apply` would refuse the revision before running any handler, or None."""
        try:
            self._ends(revision)
            return self._registry.check(self._first_values(revision))
        except SettingsError as error:
            return str(error)

    def apply(self, revision: Revision, step: int) -> Applied | Rejected:
        """Carry a config update out: ramps begin at this step, and those end whose key is changed.

        Undoing it lets those go on that it ended. Raises what `Registry.apply` does.
        """
        try:
            changes, ends = self._first_values(revision), self._ends(revision)
        except SettingsError as error:
            return Rejected(str(error))
        result = self._registry.apply(changes)
        if isinstance(result, Rejected):
            return result
        before = self._ramps
        others = {name: ramp for name, ramp in before.items() if name not in changes}
        self._ramps = others | self._begun(revision, ends, step)

        def undo() -> None:
            self._ramps = before
            result.undo()

        return Applied(result.detail, undo)

    def advance(self, step: int) -> None:
        """Bring each ramp to its value at this step, where its key may change now.

        A handler that raises ends its ramp at the last value that was good.
        """
        for name, ramp in self._ramps.items():
            value = value_at(ramp.ramp, ramp.start, ramp.end, step - ramp.first)
            if ramp.goes_on and value != ramp.value and self._is_ready(name, value):
                result = self._registry.apply({name: value})
                if isinstance(result, Applied):
                    ramp.value = value
                else:
                    self._fail(name, ramp, step, result.error)

    def stop(self, revision: int) -> dict[str, Number]:
        """End the ramps of a revision that are under way where they are; return their values by key."""
        ended = {name: r for name, r in self._ramps.items() if r.revision == revision and r.goes_on}
        self.forget(ended)
        return {name: ramp.value for name, ramp in ended.items()}

    def forget(self, names: Mapping[str, object] | None = None) -> None:
        """End the ramps of these keys, or all of them, because the keys have got another value."""
        ramps = self._ramps
        self._ramps = {} if names is None else {n: ramp for n, ramp in ramps.items() if n not in names}

    def _first_values(self, revision: Revision) -> dict[str, Value]:
        """Return what changes at once: the value of a ramp is at first that of its beginning."""
        values = self._registry.values
        changes = dict(revision.changes)
        for name, ramp in revision.ramps.items():
            if name in values:
                start = values[name] if ramp.start is None else ramp.start
                if not is_number(start) or not is_number(changes.get(name)):
                    now = "null" if start is None else repr(start)
                    text = f"{name}: a ramp leads from number to number, not from {now}"
                    raise SettingsError(f"{text}; say where it begins, as in {name}=0.1..0.2")
                changes[name] = start
        return changes

    def _ends(self, revision: Revision) -> dict[str, Value]:
        return self._registry.read({name: revision.changes.get(name) for name in revision.ramps})

    def _begun(self, revision: Revision, ends: Mapping[str, Value], step: int) -> dict[str, _Running]:
        begun: dict[str, _Running] = {}
        for name, end in ends.items():
            start = self._registry.values[name]
            if isinstance(start, Number) and isinstance(end, Number):
                begun[name] = _Running(revision.ramps[name], revision.revision, step, start, end, start)
        return begun

    def _is_ready(self, name: str, value: Number) -> bool:
        try:
            return self._registry.are_keys_ready({name: value})
        except Exception:  # noqa: BLE001 - a user's predicate may raise anything; the handler is to judge then
            return True

    def _fail(self, name: str, ramp: _Running, step: int, error: str) -> None:
        ramp.error = sendable(error)
        self._warn(
            f"the ramp of {name} in revision {ramp.revision} ended at step {step}, at {ramp.value}: {error}"
        )
