import pytest

from zloom.visibility import Unit, visible_units

GPUS = [
    Unit(uuid="GPU-aaaa1111", gpu="GPU-aaaa1111", index=0),
    Unit(uuid="GPU-aaaa2222", gpu="GPU-aaaa2222", index=1),
    Unit(uuid="GPU-bbbb3333", gpu="GPU-bbbb3333", index=2),
]
SLICES = [
    Unit(uuid="MIG-1111", gpu="GPU-cccc", index=0, instance=(1, 0)),
    Unit(uuid="MIG-2222", gpu="GPU-cccc", index=0, instance=(2, 0)),
    Unit(uuid="MIG-GPU-dddd/3/1", gpu="GPU-dddd", index=1, instance=(3, 1)),
]


def shown(value: str | None, units: list[Unit]) -> list[str]:
    return [unit.uuid for unit in visible_units(value, units)]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        ("2,1", [2, 1]),
        (" 2, 0 ", [2, 0]),
        ("0,2,-1,1", [0, 2]),
        ("0,7,1", [0]),
        ("0,,1", [0]),
        ("1gpu,2x", [1, 2]),
        ("NoDevFiles", []),
        ("1,1", []),
        ("GPU-bbbb3333", [2]),
        ("GPU-b,GPU-aaaa1", [2, 0]),
        ("GPU-aaaa", []),
        ("GPU-b,GPU-nothing,GPU-aaaa1", [2]),
        ("GPU-b,GPU-bbbb", []),
        ("GPU-b,0", [2]),
        ("0,GPU-b", [0]),
        ("gpu-b", []),
        ("MIG-1111", []),
    ],
)
def test_whole_gpus(value: str | None, indices: list[int]) -> None:
    assert shown(value, GPUS) == [GPUS[index].uuid for index in indices]


@pytest.mark.parametrize(
    ("value", "uuids"),
    [
        ("MIG-2222", ["MIG-2222"]),
        ("MIG-GPU-cccc/2/0", ["MIG-2222"]),
        ("MIG-GPU-dddd/3/1", ["MIG-GPU-dddd/3/1"]),
        ("MIG-GPU-cccc/2", []),
        ("MIG-GPU-cccc/2/00", []),
        ("MIG-2222,MIG-1111", ["MIG-2222"]),
        ("MIG-3333,MIG-1111", []),
        ("0", ["MIG-1111"]),
        ("1", ["MIG-GPU-dddd/3/1"]),
        ("GPU-cccc", ["MIG-1111"]),
        (None, ["MIG-1111"]),
        ("", []),
    ],
)
def test_slices(value: str | None, uuids: list[str]) -> None:
    assert shown(value, SLICES) == uuids


def test_no_slice_beside_a_whole_gpu() -> None:
    whole = Unit(uuid="GPU-eeee", gpu="GPU-eeee", index=2)
    assert shown(None, [*SLICES, whole]) == ["GPU-eeee"]
    assert shown("MIG-1111", [*SLICES, whole]) == ["MIG-1111"]
