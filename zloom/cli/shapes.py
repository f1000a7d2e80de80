"""The JSON that commands print. Pure; `docs/cli.md` documents each shape, and scripts rely on it."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from zloom.errors import Refused, SettingsError, ZloomError
from zloom.messages import Answered, Happened, Keys, Preview, Reported, Revised, Stacks
from zloom.model import Command, HistoryEntry, KeyState, Outcome, Schema
from zloom.schema import describe
from zloom.series import Series

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from zloom.client import Observation, Result

Json = dict[str, Any]
"""An object of JSON: the edge of the process, where types end."""


def of_struct(struct: msgspec.Struct) -> Json:
    """Return all fields of a struct, those with their default too, so that a script finds each."""
    shape = {field: _plain(getattr(struct, field)) for field in struct.__struct_fields__}
    if isinstance(struct, Outcome):
        del shape["chain"]  # only for the way to the broker
    return shape


def _plain(value: Any) -> Any:
    if isinstance(value, Schema):
        return msgspec.to_builtins(value)
    if isinstance(value, Series):
        return {"steps": value.steps.tolist(), "values": value.values.tolist()}
    if isinstance(value, msgspec.Struct):
        return of_struct(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def of_outcomes(outcomes: list[Outcome]) -> list[Json]:
    """Return the outcomes of one revision."""
    return [of_struct(outcome) for outcome in outcomes]


def of_result(result: "Result") -> Json:
    """Return what `set`, `rollback` and the commands print."""
    shape = {field.name: getattr(result, field.name) for field in fields(result)}
    return {
        **shape,
        "outcomes": of_outcomes(result.outcomes),
        "checkpoint": None if result.checkpoint is None else of_result(result.checkpoint),
        "applied_everywhere": result.applied_everywhere,
    }


def of_preview(preview: Preview) -> Json:
    """Return what `--dry-run` prints."""
    return {name: value for name, value in of_struct(preview).items() if name != "id"}


def of_stacks(stacks: Stacks) -> Json:
    """Return one replica of what `stacks` prints."""
    return {name: value for name, value in of_struct(stacks).items() if name != "id"}


def of_history(entry: HistoryEntry) -> Json:
    """Return one entry of what `history` prints."""
    revision = of_struct(entry.revision)
    guard = None if entry.guard is None else of_struct(entry.guard)
    return {**revision, "outcomes": of_outcomes(entry.outcomes), "settled": entry.settled, "guard": guard}


def of_keys(keys: Keys) -> Json:
    """Return what `keys` prints."""
    return {
        "run": keys.run,
        "attempt": keys.attempt,
        "revision": keys.revision,
        "keys": [_of_key(state) for state in keys.keys],
        "commands": [_of_command(command) for command in keys.commands],
    }


def _of_key(state: KeyState) -> Json:
    key = of_struct(state.key)
    ramp = None if state.ramp is None else of_struct(state.ramp)
    current = {"value": state.value, "revision": state.revision, "pending": state.pending, "ramp": ramp}
    return {**key, "type": describe(state.key.schema), **current}


def _of_command(command: Command) -> Json:
    return of_struct(command)


def of_error(error: ZloomError) -> Json:
    """Return what any command prints that fails; the code of a refusal is the broker's."""
    match error:
        case Refused():
            code = error.code
        case SettingsError():
            code = "bad_usage"
        case _:
            code = type(error).__name__
    return {"error": {"code": code, "text": str(error)}}


def of_observation(observation: "Observation") -> Json:
    """Return one line of what `watch` prints; `type` says what it is."""
    match observation:
        case Reported():
            status = of_struct(observation.status)
            points = {"points": _plain(observation.metrics), "device_status": _plain(observation.devices)}
            return {"type": "reported", **status, **points}
        case Revised():
            where = {"run": observation.run, "attempt": observation.attempt}
            return {"type": "revised", **where, **of_struct(observation.revision)}
        case Answered():
            return {"type": "answered", **_without_seq(observation)}
        case Happened():
            return {"type": "happened", **of_struct(observation.event)}


def _without_seq(message: msgspec.Struct) -> Json:
    return {name: value for name, value in of_struct(message).items() if name != "seq"}


def of_dataclass(instance: "DataclassInstance") -> Json:
    """Return all fields of a dataclass; a path as its text."""
    shape = asdict(instance)
    return {name: str(value) if isinstance(value, Path) else value for name, value in shape.items()}
