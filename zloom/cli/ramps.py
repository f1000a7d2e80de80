"""Ramps on a command line: `1e-4..1e-3 over 2000 steps`. Pure."""

import re
from collections.abc import Mapping

from zloom.errors import SettingsError
from zloom.messages import Keys
from zloom.model import Ramp, Schema
from zloom.schema import parse

_RAMP = re.compile(r"(\S*?)\s*\.\.\s*(\S+)\s+over\s+(\S+)\s+steps?(?:\s+(linear|cosine))?", re.IGNORECASE)
_HINT = re.compile(r"\.\.|\sover\s")
EXPECTED = "expected start..end over N steps; start may be left out, and cosine may follow"


def split(texts: Mapping[str, str], keys: Keys) -> tuple[dict[str, str], dict[str, Ramp]]:
    """Return the texts of the values at the end, and the ramps; only keys that are numbers have any.

    Raises:
        SettingsError: A text begins like a ramp and is none.
    """
    schemas = {state.key.name: state.key.schema for state in keys.keys}
    ends, ramps = dict(texts), dict[str, Ramp]()
    for name, text in texts.items():
        schema = schemas.get(name)
        if schema is not None and _HINT.search(text) and {"integer", "number"} & set(schema.type):
            ends[name], ramps[name] = _read(name, text.strip(), schema)
    return ends, ramps


def _read(name: str, text: str, schema: Schema) -> tuple[str, Ramp]:
    found = _RAMP.fullmatch(text)
    if found is None:
        raise SettingsError(f"{name}: {text!r} is no ramp; {EXPECTED}")
    start, end, steps, shape = found.groups()
    try:
        count = int(steps)
    except ValueError:
        raise SettingsError(f"{name}: {steps!r} is no number of steps; {EXPECTED}") from None
    if count < 1:
        raise SettingsError(f"{name}: a ramp over {count} steps; expected 1 or more")
    try:
        first = parse(start, schema) if start else None
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    if not isinstance(first, int | float | None):
        raise SettingsError(f"{name}: {start!r} is no number to start at; {EXPECTED}")
    return end, Ramp(count, first, "cosine" if (shape or "").lower() == "cosine" else "linear")
