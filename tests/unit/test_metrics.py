import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fake_torch import Device, Tensor
from zloom.cuda_copies import SLAB, CopyPool
from zloom.metrics import UNREAD_POINTS, MetricBuffer
from zloom.model import MAX_METRIC_NAME, MAX_METRICS
from zloom.series import Series

EVERYTHING = 10**9


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def buffer(warnings: list[str]) -> MetricBuffer:
    return MetricBuffer(limit=100, warn=warnings.append)


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns every few bytecodes, not every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(params=[True, False], ids=["torch", "torch before 2.6"])
def device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Device]:
    device = Device(accelerator=request.param)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", device)
        yield device


def test_points_come_out_in_columns(buffer: MetricBuffer) -> None:
    buffer.append(1, {"loss": 0.5, "accuracy": 1})
    buffer.append(2, {"loss": 0.25})
    assert len(buffer) == 3
    assert buffer.drain(EVERYTHING) == {
        "loss": Series.of([1, 2], [0.5, 0.25]),
        "accuracy": Series.of([1], [1.0]),
    }
    assert len(buffer) == 0
    assert buffer.drain(EVERYTHING) == {}


NUMBERS: list[Any] = [
    2,
    2.0,
    np.float32(2),
    np.float64(2),
    np.int64(2),
    np.array(2.0),
    torch.tensor(2.0),
    torch.tensor([[2]]),
    torch.tensor(2.0, dtype=torch.bfloat16),
    torch.tensor(2.0, requires_grad=True),
    torch.nn.Parameter(torch.tensor(2.0)),
]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_every_kind_of_number_becomes_a_float(buffer: MetricBuffer, value: Any) -> None:
    buffer.append(1, {"x": value})
    [series] = buffer.drain(EVERYTHING).values()
    assert series.values.tolist() == [2.0]
    assert type(series.values[0]) is float


def test_a_bool_counts_as_one_or_zero(buffer: MetricBuffer) -> None:
    buffer.append(1, {"done": True, "lost": torch.tensor(False)})
    assert buffer.drain(EVERYTHING) == {"done": Series.of([1], [1.0]), "lost": Series.of([1], [0.0])}


def test_what_is_not_finite_is_reported_too(buffer: MetricBuffer) -> None:
    buffer.append(1, {"loss": math.nan, "norm": torch.tensor(math.inf)})
    drained = buffer.drain(EVERYTHING)
    assert math.isnan(drained["loss"].values[0])
    assert drained["norm"].values.tolist() == [math.inf]


def test_a_tensor_is_read_at_the_call(buffer: MetricBuffer) -> None:
    total = torch.tensor(1.0)
    buffer.append(1, {"total": total})
    total += 1
    assert buffer.drain(EVERYTHING) == {"total": Series.of([1], [1.0])}


class Distributed(torch.Tensor):
    def full_tensor(self) -> torch.Tensor:
        raise AssertionError("a collective")


REFUSED: list[tuple[Any, str]] = [
    ("0.5", "it must be a number, got str"),
    (None, "it must be a number, got NoneType"),
    ([1.0], "it must be a number, got list"),
    (1j, "it must be a number, got complex"),
    (np.array([1.0]), "it must be one number, got an array of shape (1,)"),
    (torch.tensor([1.0, 2.0]), "it must be one number, got a tensor of shape (2,)"),
    (torch.tensor([]), "it must be one number, got a tensor of shape (0,)"),
    (torch.tensor(1j), "complex"),
    (torch.empty((), device="meta"), "meta"),
    (torch.tensor(1.0).as_subclass(Distributed), "it is a distributed tensor; report its full_tensor()"),
]


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=lambda each: repr(each)[:40])
def test_what_is_no_number_is_refused_with_one_warning(
    buffer: MetricBuffer, warnings: list[str], value: Any, text: str
) -> None:
    for step in (1, 2):
        buffer.append(step, {"bad": value, "loss": 0.5})
    [warning] = warnings
    assert warning.startswith("metric bad is not reported: ")
    assert text in warning
    assert buffer.refused == 2
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1, 2], [0.5, 0.5])}


def test_the_warning_is_pythons_own_unless_told_otherwise() -> None:
    with pytest.warns(UserWarning, match="metric bad is not reported"):
        MetricBuffer().append(1, {"bad": "x"})


def test_a_number_too_large_for_a_float_is_dropped(buffer: MetricBuffer) -> None:
    buffer.append(1, {"big": 10**400, "loss": 1})
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1], [1.0])}
    assert buffer.dropped == 1


def test_names_are_bounded_and_what_is_beyond_is_dropped_and_counted() -> None:
    buffer = MetricBuffer()
    for step in range(MAX_METRICS + 50):
        buffer.append(step, {f"loss at {step}": 0.5, "loss": 0.5})
    series = buffer.drain(EVERYTHING)
    assert len(series) == MAX_METRICS
    assert len(series["loss"].steps) == MAX_METRICS + 50
    assert (buffer.dropped, len(buffer)) == (51, 0)
    assert buffer.surplus == f"'loss at {MAX_METRICS - 1}'"


def test_a_name_is_bounded_too(buffer: MetricBuffer) -> None:
    buffer.append(1, {"x" * (MAX_METRIC_NAME + 1): 1, "x" * MAX_METRIC_NAME: 1})
    assert list(buffer.drain(EVERYTHING)) == ["x" * MAX_METRIC_NAME]
    assert buffer.dropped == 1


def test_a_name_that_no_message_can_hold_is_dropped_and_keeps_back_no_other(buffer: MetricBuffer) -> None:
    for step in (1, 2):
        buffer.append(step, {"acc/\udc80": 1.0, "loss": 0.5})
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1, 2], [0.5, 0.5])}
    assert buffer.dropped == 2
    assert buffer.surplus == r"'acc/\udc80'"


def test_warnings_of_made_up_names_end(buffer: MetricBuffer, warnings: list[str]) -> None:
    for step in range(MAX_METRICS + 50):
        buffer.append(step, {f"picture {step}": "x"})
    assert len(warnings) == MAX_METRICS
    assert buffer.refused == MAX_METRICS + 50


def test_the_oldest_points_are_dropped_and_counted() -> None:
    buffer = MetricBuffer(limit=10)
    for step in range(20):
        buffer.append(step, {"a": step, "b": step})
    assert len(buffer) == 10
    assert buffer.dropped == 30
    assert buffer.drain(EVERYTHING)["a"].steps.tolist() == [15, 16, 17, 18, 19]


def test_a_count_that_two_threads_lost_makes_no_length_below_0(buffer: MetricBuffer) -> None:
    buffer.append(1, {"a": 1})
    buffer._appended -= 1  # as when both read it before one wrote it
    buffer.drain(EVERYTHING)
    assert len(buffer) == 0


def test_nothing_reported_takes_no_room(buffer: MetricBuffer) -> None:
    for step in range(1000):
        buffer.append(step, {})
    assert len(buffer._rows) == 0


def test_no_more_is_taken_than_asked_for(buffer: MetricBuffer) -> None:
    buffer.append(1, {"a": 1, "b": 1, "c": 1})
    buffer.append(2, {"a": 2, "b": 2, "c": 2})
    assert buffer.drain(0) == {}
    assert buffer.drain(2) == {"a": Series.of([1], [1.0]), "b": Series.of([1], [1.0])}
    assert len(buffer) == 4
    assert buffer.drain(2) == {"c": Series.of([1], [1.0]), "a": Series.of([2], [2.0])}
    assert buffer.drain(9) == {"b": Series.of([2], [2.0]), "c": Series.of([2], [2.0])}


@given(
    st.lists(
        st.integers(0, 12) | st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False), min_size=1),
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_each_point_is_taken_once_in_order_or_dropped(actions: list[Any], limit: int) -> None:
    buffer = MetricBuffer(limit)
    put: dict[str, list[tuple[int, float]]] = {name: [] for name in "abc"}
    taken: dict[str, list[tuple[int, float]]] = {name: [] for name in "abc"}

    def drain(points: int) -> None:
        drained = buffer.drain(points)
        assert sum(len(series.steps) for series in drained.values()) <= points
        for name, series in drained.items():
            taken[name] += zip(series.steps, series.values, strict=True)

    for step, action in enumerate(actions):
        if isinstance(action, int):
            drain(action)
        else:
            buffer.append(step, dict(action))
            for name, value in action.items():
                put[name].append((step, value))
    drain(EVERYTHING)
    for name in "abc":
        kept = iter(put[name])
        assert all(point in kept for point in taken[name]), "out of order, or never reported"
    count = sum(map(len, put.values()))
    assert sum(map(len, taken.values())) + buffer.dropped == count
    assert len(buffer) == 0


def test_it_is_ripe_once_until_it_is_drained() -> None:
    buffer, seen = MetricBuffer(limit=10, batch=3), []
    buffer.ripe = lambda: seen.append(len(buffer))
    for step in range(20):
        buffer.append(step, {"a": step})
    assert seen == [4]
    assert (len(buffer), buffer.dropped) == (10, 10)
    buffer.drain(EVERYTHING)
    for step in range(4):
        buffer.append(step, {"a": step})
    assert seen == [4, 4]


def test_rows_of_the_same_metrics_come_out_as_others_do() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": 0.5}] * 3
    rows += [{"b": 2, "a": 3}, {"a": 10**400, "b": 1}, {"a": 4, "b": 5}, {"c": True}]
    buffer = MetricBuffer()
    for step, row in enumerate(rows):
        buffer.append(step, dict(row))
    assert buffer.drain(5) == {"a": Series.of([0, 1, 2], [1.0] * 3), "b": Series.of([0, 1], [0.5] * 2)}
    drained = buffer.drain(EVERYTHING)
    assert drained == {
        "a": Series.of([3, 5], [3.0, 4.0]),
        "b": Series.of([2, 3, 4, 5], [0.5, 2.0, 1.0, 5.0]),
        "c": Series.of([6], [1.0]),
    }
    assert {type(value) for series in drained.values() for value in series.values} == {float}
    assert buffer.dropped == 1


@pytest.mark.usefixtures("eager_switching")
def test_two_threads_lose_no_count_and_no_order() -> None:
    buffer, count = MetricBuffer(limit=50), 20_000

    def report() -> None:
        for step in range(count):
            buffer.append(step, {"a": step, "b": 0.5})

    reporter = threading.Thread(target=report)
    steps: list[int] = []
    reporter.start()
    while reporter.is_alive() or len(buffer):
        drained = buffer.drain(7)
        steps += drained["a"].steps if "a" in drained else []
    reporter.join()
    assert steps == sorted(set(steps))
    assert 2 * len(steps) + buffer.dropped == 2 * count


def test_a_copy_from_a_gpu_is_read_when_it_is_done(buffer: MetricBuffer, device: Device) -> None:
    loss = Tensor(1.0)
    buffer.append(1, {"loss": loss, "lr": 0.1})
    loss.value = 7.0
    assert buffer.drain(EVERYTHING) == {"lr": Series.of([1], [0.1])}
    assert len(buffer) == 1
    device.finish(1)
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1], [1.0])}
    assert len(buffer) == 0


def test_a_metric_keeps_its_order_while_a_copy_is_on_its_way(buffer: MetricBuffer, device: Device) -> None:
    buffer.append(1, {"loss": Tensor(1.0)})
    buffer.append(2, {"loss": 2.0, "lr": 0.1})
    assert buffer.drain(EVERYTHING) == {"lr": Series.of([2], [0.1])}
    buffer.append(3, {"loss": Tensor(3.0)})
    device.finish(1)
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1, 2], [1.0, 2.0])}
    device.finish(1)
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([3], [3.0])}


def test_copies_that_are_never_done_do_not_pile_up(device: Device) -> None:
    buffer = MetricBuffer(limit=10)
    for step in range(100):
        buffer.append(step, {"loss": Tensor(1.0)})
        buffer.drain(EVERYTHING)
    assert len(buffer) == 20
    assert buffer.dropped == 80


def test_memory_for_copies_is_used_again(buffer: MetricBuffer, device: Device) -> None:
    taken: list[float] = []
    for step in range(1000):
        buffer.append(step, {"loss": Tensor(step)})
        buffer.append(step, {"loss": Tensor(step + 0.5)})
        device.finish(2)
        taken += buffer.drain(EVERYTHING)["loss"].values
    assert taken == [step / 2 for step in range(2000)]
    assert device.pinned == SLAB


def test_memory_that_was_had_in_inference_mode_is_good_outside_of_it(device: Device) -> None:
    """Real tensors, of the CPU: it is the same rule for them."""

    def empty(count: int, *, dtype: torch.dtype, **_: object) -> torch.Tensor:
        return torch.empty(count, dtype=dtype)

    shim = SimpleNamespace(**{**vars(device), "empty": empty, "inference_mode": torch.inference_mode})
    pool, copies = CopyPool(), []
    with torch.inference_mode():
        copies.append(pool.start(shim, torch.tensor(1.0)))
    copies.append(pool.start(shim, torch.tensor(2.0, requires_grad=True)))
    device.finish(2)
    assert [each.take() for each in copies] == [1.0, 2.0]


def test_copies_of_a_failed_gpu_are_dropped_and_counted(buffer: MetricBuffer, device: Device) -> None:
    buffer.append(1, {"loss": Tensor(1.0), "lr": 0.1})
    device.failed = True
    assert buffer.drain(EVERYTHING) == {"lr": Series.of([1], [0.1])}
    assert buffer.dropped == 1


def test_a_gpu_tensor_that_cannot_be_copied_is_refused(
    buffer: MetricBuffer, device: Device, warnings: list[str]
) -> None:
    buffer.append(1, {"z": Tensor(1j)})  # type: ignore[arg-type]
    buffer.append(1, {"many": Tensor(1.0, size=2)})
    device.capturing = True
    buffer.append(1, {"loss": Tensor(1.0)})
    assert [text.partition(": ")[2] for text in warnings] == [
        "it must be a real number, got a complex tensor",
        "it must be one number, got a tensor of shape (2,)",
        "a CUDA graph is being captured; report after its replay",
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_cuda_tensor_is_copied_without_waiting(buffer: MetricBuffer) -> None:
    total = torch.zeros((), device="cuda")
    total += 1  # what is done for the first time loads a kernel, for which the driver waits
    buffer.append(0, {"total": total})
    torch.cuda.synchronize()
    assert buffer.drain(EVERYTHING) == {"total": Series.of([0], [1.0])}
    torch.cuda._sleep(2_000_000_000)  # type: ignore[no-untyped-call]
    for step in range(3):
        total += 1
        buffer.append(step, {"total": total})
    assert buffer.drain(EVERYTHING) == {}, "append waited for the GPU"
    torch.cuda.synchronize()
    assert buffer.drain(EVERYTHING) == {"total": Series.of([0, 1, 2], [2.0, 3.0, 4.0])}


def test_torch_and_numpy_are_not_imported() -> None:
    code = "import sys, zloom.metrics; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tensor_that_nobody_changes_is_read_when_it_is_taken() -> None:
    buffer = MetricBuffer()
    for step in range(1, 4):
        buffer.append_unread(step, {"loss": torch.tensor(step / 4), "epoch": 2})
    assert buffer.drain(EVERYTHING) == {
        "loss": Series.of([1, 2, 3], [0.25, 0.5, 0.75]),
        "epoch": Series.of([1, 2, 3], [2, 2, 2]),
    }


def test_tensors_become_numbers_some_together() -> None:
    buffer = MetricBuffer()
    for step in range(UNREAD_POINTS - 1):
        buffer.append_unread(step, {"loss": torch.tensor(step / 4)})
    assert {type(row["loss"]) for _, row in buffer._rows} == {torch.Tensor}
    buffer.append_unread(UNREAD_POINTS - 1, {"loss": torch.tensor(0.5j)})
    assert {type(row["loss"]) for _, row in buffer._rows} == {float, torch.Tensor}, "what is no number stays"
    losses = [step / 4 for step in range(UNREAD_POINTS - 1)]
    assert buffer.drain(EVERYTHING) == {"loss": Series.of(range(UNREAD_POINTS - 1), losses)}
    assert buffer.dropped == 1


def test_an_unread_tensor_of_several_numbers_takes_no_other_point_along() -> None:
    buffer = MetricBuffer()
    buffer.append_unread(1, {"loss": torch.tensor(0.5), "logits": torch.ones(2)})
    buffer.append_unread(2, {"loss": torch.tensor(0.25), "logits": torch.tensor(3.0)})
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([1, 2], [0.5, 0.25]), "logits": Series.of([2], [3])}
    assert buffer.dropped == 1


def test_of_tensors_that_nobody_takes_the_newest_are_kept() -> None:
    buffer = MetricBuffer(limit=4, batch=2)
    ripe: list[int] = []
    buffer.ripe = lambda: ripe.append(len(buffer))
    for step in range(1, 7):
        buffer.append_unread(step, {"loss": torch.tensor(0.5)})
    assert ripe == [3]
    assert buffer.dropped == 2
    assert buffer.drain(EVERYTHING) == {"loss": Series.of([3, 4, 5, 6], [0.5] * 4)}


@pytest.mark.usefixtures("eager_switching")
def test_tensors_that_are_read_on_both_threads_are_taken_once() -> None:
    buffer = MetricBuffer()
    steps = 40 * UNREAD_POINTS
    taken: list[tuple[int, float]] = []
    appending = threading.Event()

    def take() -> None:
        while True:
            last = appending.is_set()
            for series in buffer.drain(EVERYTHING).values():
                taken.extend(zip(series.steps, series.values, strict=True))
            if last:
                return

    taker = threading.Thread(target=take)
    taker.start()
    for step in range(steps):
        buffer.append_unread(step, {"loss": torch.tensor(float(step))})
    appending.set()
    taker.join()
    assert taken == [(step, float(step)) for step in range(steps)]
