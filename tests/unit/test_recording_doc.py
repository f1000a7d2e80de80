"""docs/recording.md says everything that is in a recording, and nothing that is not."""

import re
from pathlib import Path
from typing import get_args

import msgspec.inspect as mi
import pytest

from tests.unit.test_protocol_doc import default_of, rows
from zloom import recording
from zloom.model import ReplicaStatus
from zloom.series import Series

TEXT = (Path(__file__).parents[2] / "docs" / "recording.md").read_text()
KINDS = {str(kind.__struct_config__.tag): kind for kind in get_args(recording.AnyRecord)}


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/recording.md has no section {title!r}: describe it there"
    return found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_is_described_with_its_default(kind: str) -> None:
    documented = {row[0].strip("`"): row[2] for row in rows(section(kind))}
    info = mi.type_info(KINDS[kind])
    assert isinstance(info, mi.StructType)
    assert documented == {field.name: default_of(field) for field in info.fields}


def test_the_reader_of_the_document_prints_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert program
    records: list[recording.AnyRecord] = [
        recording.Header(magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one"),
        recording.Reported(
            status=ReplicaStatus("r1", "lm", "one", rank=0), metrics={"loss": Series.of([7, 8], [0.5, 0.25])}
        ),
        recording.End(reason="finished"),
    ]
    (tmp_path / "tiny-lm.zloom").write_bytes(b"".join(map(recording.encode, records)))
    monkeypatch.chdir(tmp_path)
    exec(program[1], {})
    assert capsys.readouterr().out == "0 7 0.5\n0 8 0.25\n"
