"""What would come of a change: all that stands against its values, and whose schema it is."""

from collections.abc import Iterator, Mapping

from zloom.errors import Refused
from zloom.messages import Rollback, SendCommand, SetConfig
from zloom.model import Problem, Replica, Schema, Value
from zloom.schema import describe
from zloom_broker.attempt import Attempt
from zloom_broker.validation import check

MAX_PROBLEMS = 50
"""Problems that a preview names: there may be as many as keys times replicas."""

OF_VALUES = frozenset({"wrong_type", "out_of_bounds", "bad_value", "bad_arguments"})
"""Codes of what is wrong with a value, of which a refusal names the first."""


def problems(
    attempt: Attempt, request: SetConfig | Rollback | SendCommand, refused: Refused
) -> list[Problem]:
    """Return why a change would be refused.

    Args:
        attempt: That it is for.
        request: What is asked for.
        refused: The first reason that was found.
    """
    if refused.code == "too_large":
        return [Problem(refused.code, refused.text)]
    found: dict[tuple[str, str], list[str]] = {}
    for replica in attempt.present():
        for code, text in _against(attempt, request, replica):
            found.setdefault((code, text), []).append(replica.id)
    of_values = [Problem(code, text, replicas) for (code, text), replicas in found.items()]
    rest = [] if refused.code in OF_VALUES and of_values else [Problem(refused.code, refused.text)]
    return [*rest, *of_values][:MAX_PROBLEMS]


def _against(
    attempt: Attempt, request: SetConfig | Rollback | SendCommand, replica: Replica
) -> Iterator[tuple[str, str]]:
    match request:
        case SetConfig():
            yield from _values(request.changes, replica)
        case Rollback(to_revision=number) if 0 <= number <= attempt.revision:
            config = attempt.config.at(number)
            yield from _values({name: setting.value for name, setting in config.items()}, replica)
        case SendCommand():
            schema = next((each.schema for each in replica.commands if each.name == request.command), None)
            problem = _problem(request.command, request.arguments, schema) if schema is not None else None
            if problem is not None:
                yield "bad_arguments", problem[1]


def _values(changes: Mapping[str, Value], replica: Replica) -> Iterator[tuple[str, str]]:
    for key in replica.keys:
        problem = _problem(key.name, changes[key.name], key.schema) if key.name in changes else None
        if problem is not None:
            yield problem


def _problem(name: str, value: object, schema: Schema) -> tuple[str, str] | None:
    problem = check(value, schema)
    return None if problem is None else (problem[0], f"{name}: {problem[1]}; expected {describe(schema)}")
