"""docs/protocol.md says everything that is on the wire, and nothing that is not."""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec.inspect as mi
import pytest
from msgspec import NODEFAULT, Struct

from tests.unit.message_strategies import ALL
from zloom import codec, messages, model, series
from zloom.messages import Outcomes
from zloom.model import Outcome

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
BROKER = ROOT / "broker" / "zloom_broker"
TYPES = [
    kind
    for module in (model, series)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if kind.__module__ == module.__name__
]
NAMES = {messages._snake(kind.__name__): kind for kind in (*TYPES, *(kind for _, kind in ALL))}


def rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of all tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [each for each in cells if set("".join(each)) - set("-| ") and each[0] not in ("field", "code")]


def section(title: str, level: int) -> str:
    """Return what stands below a heading, up to the next one."""
    found = re.search(rf"^{'#' * level} {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/protocol.md has no section {title!r}: describe it there"
    return found[1]


def default_of(field: mi.Field) -> str:
    if field.default_factory is not NODEFAULT:
        return "empty"
    if field.default is NODEFAULT:
        return "required"
    return "empty" if field.default in ("", b"") else json.dumps(field.default)


def literals(info: Any) -> set[str]:
    """Return the words that a type allows."""
    if isinstance(info, mi.LiteralType):
        return {str(value) for value in info.values}
    return {word for each in getattr(info, "types", ()) for word in literals(each)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_field_is_described_with_its_default(name: str) -> None:
    documented = {row[0].strip("`"): row[2] for row in rows(section(name, 3))}
    kind: type[Struct] = NAMES[name]
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    assert documented == {field.encode_name: default_of(field) for field in info.fields}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_word_that_a_field_may_hold_is_named(name: str) -> None:
    info = mi.type_info(NAMES[name])
    assert isinstance(info, mi.StructType)
    kinds = {row[0].strip("`"): row[1] for row in rows(section(name, 3))}
    for field in info.fields:
        assert literals(field.type) <= set(re.findall(r"`(\w+)`", kinds[field.encode_name]))


def test_nothing_is_described_that_does_not_exist() -> None:
    assert sorted(re.findall(r"^### (.*)$", TEXT, re.MULTILINE)) == sorted(NAMES)


def codes_of(*callees: str) -> set[str]:
    """Return the codes that the broker's sources give to these."""
    found = set()
    for path in BROKER.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in callees:
                values = [*call.args[:2], *(word.value for word in call.keywords if word.arg == "code")]
                words = [each.value for each in values if isinstance(each, ast.Constant)]
                found |= {word for word in words if isinstance(word, str) and re.fullmatch("[a-z_]+", word)}
    return found


def documented_codes(title: str) -> set[str]:
    return {code for row in rows(section(title, 2)) for code in re.findall(r"`(\w+)`", row[0])}


def test_each_refusal_is_listed() -> None:
    of_values = {"wrong_type", "out_of_bounds", "bad_value"}  # from validation.check
    assert codes_of("Refused", "Refusal") | of_values == documented_codes("Refusals")


def test_each_error_is_listed() -> None:
    assert codes_of("Error", "bad_message") == documented_codes("Errors")


@pytest.mark.parametrize(
    ("title", "union", "heading"),
    [("Outcomes", model.OutcomeKind, "outcome"), ("Liveness", model.State, "state")],
)
def test_each_outcome_and_state_is_explained(title: str, union: Any, heading: str) -> None:
    explained = {row[0].strip("`") for row in rows(section(title, 2))}
    assert explained - {heading} == set(get_args(union)) - {heading}


def test_each_link_leads_somewhere() -> None:
    slugs: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        slugs.add(f"{slug}-1" if slug in slugs else slug)
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= slugs


def test_the_message_in_the_example_is_real() -> None:
    dump = re.search(r"```\nframe 1\n(.*?)\n\nframe 2\n(.*?)\n```", TEXT, re.DOTALL)
    assert dump is not None
    frames = [bytes.fromhex("".join(line[6:53] for line in part.splitlines())) for part in dump.groups()]
    message = Outcomes(
        epoch="3-5de71071088e3d75", outcomes={7: Outcome("4f1c2a9d8e7b6053", outcome="applied", step=1840)}
    )
    assert frames == codec.control_frames(message)


def test_the_limits_are_those_of_the_code() -> None:
    limits = section("Limits", 2)
    assert f"{codec.MAX_MESSAGE_SIZE:,} bytes" in limits
    assert f"{model.MAX_SCHEMA_DEPTH} levels" in limits


@pytest.mark.parametrize(
    "title", sorted(set(re.findall(r'"([A-Z][a-z ]+)"', (ROOT / "examples/bare_client.py").read_text())))
)
def test_the_bare_client_points_at_sections_that_exist(title: str) -> None:
    assert section(title, 2)
