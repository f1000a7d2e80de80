"""`momentum` and `weight_decay` of a training whose optimizer changes to one that has none, and back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import zloom.torch
from tests.e2e.lightning_models import QUIET
from tests.e2e.test_lightning_callback import until
from tests.e2e.test_loop_steering import DENSE, Loop
from tests.support import DEADLINE
from zloom.client import SyncOperator
from zloom.errors import Refused
from zloom.model import Value
from zloom.torch.base import Undo
from zloom.torch.hyperparameters import Momentum, WeightDecay
from zloom.torch.momenta import has_momentum
from zloom.torch.optimizer_type import OptimizerType

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def steered(operator: SyncOperator, run: str, name: str, script: Callable[[], object], **launch: Any) -> Loop:
    """Train with an optimizer of this name while an operator's script runs, and return the loop."""
    loop = Loop(name, lr=0.001)
    with (
        ThreadPoolExecutor(1) as pool,
        zloom.Weavelet(run, broker=operator.endpoint, **launch) as weavelet,
    ):
        zloom.torch.steer(weavelet, loop.optimizer, model=loop.model)
        following = pool.submit(script)
        while not following.done():
            weavelet.tick()
            loop.step()
        following.result(DEADLINE)
    return loop


def lives(operator: SyncOperator, run: str) -> Any:
    """Return a question: whether the one replica that has not left trains with all its keys."""

    def ask() -> bool:
        try:
            replicas = [one for one in operator.replicas(run) if one.state == "live"]
            return len(replicas) == 1 and len(operator.keys(run).keys) == 4 and bool(replicas[0].step)
        except Refused:
            return False

    return ask


def set_all(operator: SyncOperator, run: str, *updates: dict[str, Value]) -> None:
    until(lives(operator, run))
    for update in updates:
        (outcome,) = operator.set(run, update).outcomes
        assert outcome.outcome == "applied", outcome.error


def momentum_and_decay(loop: Loop) -> tuple[float, float]:
    (group,) = loop.made.param_groups
    return group.get("momentum", group["betas"][0]), group["weight_decay"]


RPROP: list[dict[str, Value]] = [{"momentum": 0.8, "weight_decay": 0.2}, {"optimizer_type": "rprop"}]


def test_an_attempt_takes_over_what_an_optimizer_of_now_has_not(operator: SyncOperator, run: str) -> None:
    """All values of its config are one update, of which two have nothing that they could change."""
    steered(operator, run, "adamw", lambda: set_all(operator, run, *RPROP))

    def go_back() -> None:
        set_all(operator, run, {"optimizer_type": "nadam"})
        config.update(operator.get(run))

    config: dict[str, Value] = {}
    loop = steered(operator, run, "adamw", go_back, inherit=True)
    assert momentum_and_decay(loop) == (0.8, 0.2)
    assert config == {
        "optimizer_type": "nadam", "learning_rate": 0.001, "momentum": 0.8, "weight_decay": 0.2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [("adagrad", {"momentum": 0.8}, (0.8, 0.0)), ("rprop", {"weight_decay": 0.2}, (0.9, 0.2))],
)
def test_a_rank_that_is_restarted_takes_over_what_its_optimizer_has_not(
    operator: SyncOperator, run: str, name: str, before: dict[str, Value], now: tuple[float, float]
) -> None:
    """Its program makes the optimizer that the config says, so that the value alone is to come there."""
    first: dict[str, Value] = {"optimizer_type": "adamw"}
    back: dict[str, Value] = {"optimizer_type": name}
    steered(operator, run, name, lambda: set_all(operator, run, first | before, back), attempt="one")
    loop = steered(operator, run, name, lambda: set_all(operator, run, first), attempt="one")
    assert momentum_and_decay(loop) == now


def test_a_rollback_to_an_optimizer_that_has_neither(operator: SyncOperator, run: str) -> None:
    def script() -> None:
        set_all(operator, run, {"optimizer_type": "adamw", "momentum": 0.8, "weight_decay": 0.2})
        (outcome,) = operator.rollback(run, 0).outcomes
        assert outcome.outcome == "applied", outcome.error
        set_all(operator, run, {"optimizer_type": "adamw"})
        assert operator.get(run)["momentum"] is None

    loop = steered(operator, run, "rprop", script)
    assert momentum_and_decay(loop) == (0.9, 0.0)


def test_a_value_for_what_an_optimizer_has_not_is_kept_and_the_operator_told(
    operator: SyncOperator, run: str
) -> None:
    def script() -> None:
        set_all(operator, run, {"optimizer_type": "rprop"})
        (outcome,) = operator.set(run, {"momentum": 0.6, "weight_decay": 0.3}).outcomes
        assert outcome.outcome == "applied"
        assert outcome.detail == (
            "weight_decay: Rprop knows no weight decay; it is kept for the next that does; "
            "momentum: Rprop has no momentum; it is kept for the next that has"
        )
        until(lambda: bool(operator.set(run, {"momentum": 0.5}, timeout=DEADLINE).applied_everywhere))
        (outcome,) = operator.rollback(run, 1).outcomes
        assert outcome.outcome == "applied", outcome.error
        assert (operator.get(run)["momentum"], operator.get(run)["weight_decay"]) == (0.9, 0.01)
        set_all(operator, run, {"momentum": 0.6}, {"optimizer_type": "adam"})

    assert momentum_and_decay(steered(operator, run, "adamw", script)) == (0.6, 0.01)


def change(loop: Loop, *types: str) -> list[Undo]:
    undos = []
    for name in types:
        undos.append(OptimizerType().apply(loop.optimization, name))
        loop.step()
    return undos


def momenta(loop: Loop) -> list[float]:
    """Return the momenta with which the groups are trained."""
    groups, known = loop.made.param_groups, loop.made.defaults
    return [group["momentum"] if "momentum" in known else group["betas"][0] for group in groups]


@pytest.mark.parametrize("name", DENSE)
def test_momentum_goes_over_to_each_class_and_through_those_without(name: str) -> None:
    loop = Loop("adamw")
    Momentum().apply(loop.optimization, 0.7)
    first, last = change(loop, name, "sgd")
    assert momenta(loop) == [0.7]
    last()
    if has_momentum(loop.made.defaults):
        assert momenta(loop) == [0.7]
    first()
    assert momenta(loop) == [0.7]


def test_each_group_has_its_own_momentum() -> None:
    loop = Loop("sgd")
    loop.made = loop.optimizer = torch.optim.SGD(
        [
            {"params": [one], "momentum": momentum}
            for one, momentum in zip(loop.model.parameters(), (0.5, 0.6), strict=True)
        ],
        lr=0.01,
    )
    change(loop, "adagrad", "adam")
    assert momenta(loop) == [0.5, 0.6]


@pytest.mark.parametrize(("name", "own"), [("adamw", 0.9), ("muon", 0.95), ("rmsprop", 0.0)])
def test_an_optimizer_without_momentum_leaves_its_successor_its_own(name: str, own: float) -> None:
    """SGD's is 0 where the program says nothing, which is no choice of anybody's for another class."""
    loop, key = Loop("sgd"), Momentum()
    change(loop, name)
    assert momenta(loop) == [own]
    assert key.get(loop.optimization) is None
    change(loop, "sgd")
    assert (momenta(loop), key.get(loop.optimization)) == ([0.0], None)


def test_a_momentum_of_zero_that_was_asked_for_goes_over() -> None:
    loop, key = Loop("sgd"), Momentum()
    key.apply(loop.optimization, 0.0)
    change(loop, "adam")
    assert (momenta(loop), key.get(loop.optimization)) == ([0.0], 0.0)


def test_what_a_program_or_a_schedule_writes_is_the_newer_word() -> None:
    loop, key = Loop("adamw"), Momentum()
    key.apply(loop.optimization, 0.5)
    change(loop, "sgd")
    loop.made.param_groups[0]["momentum"] = 0.6
    assert key.get(loop.optimization) == 0.6
    change(loop, "adam")
    assert momenta(loop) == [0.6]


def test_a_group_at_zero_beside_others_was_put_there() -> None:
    loop = Loop("sgd")
    first, second = loop.model.parameters()
    groups = [{"params": [first], "momentum": 0.5}, {"params": [second], "momentum": 0.0}]
    loop.made = loop.optimizer = torch.optim.SGD(groups, lr=0.01)
    change(loop, "adamw")
    assert momenta(loop) == [0.5, 0.0]


def test_betas_that_are_tensors_stay_tensors() -> None:
    loop, key = Loop("adamw"), Momentum()
    betas = torch.tensor(0.9), torch.tensor(0.99)
    loop.made = loop.optimizer = torch.optim.Adam(loop.model.parameters(), lr=0.01, betas=betas)
    undo = key.apply(loop.optimization, 0.8)
    assert loop.made.param_groups[0]["betas"][0] is betas[0], "in place, for a graph that was captured"
    (undo_type,) = change(loop, "adamw")
    assert all(isinstance(beta, torch.Tensor) for beta in loop.made.param_groups[0]["betas"])
    key.apply(loop.optimization, 0.7)
    assert momenta(loop) == pytest.approx([0.7])
    undo_type()
    assert momenta(loop) == pytest.approx([0.8])
    undo()
    assert momenta(loop) == pytest.approx([0.9])


def test_what_steps_led_to_is_reached_in_one() -> None:
    loop, key = Loop("adamw"), Momentum()
    key.apply(loop.optimization, 0.0)
    change(loop, "muon")
    again = Loop("adamw")
    change(again, "muon")
    key.apply(again.optimization, 0.0)
    assert momenta(loop) == momenta(again) == [0.0]


def test_what_the_program_made_comes_back_whole_and_on_the_way_is_as_from_a_restart() -> None:
    """A rank that is restarted takes a config from the program's optimizer in one step."""
    loop, key = Loop("sgd"), Momentum()
    first, second = loop.model.parameters()

    def made() -> Any:
        groups: Any = [{"params": [first]}, {"params": [second], "betas": (0.5, 0.9)}]
        return torch.optim.Adam(groups, lr=0.01, eps=1e-4, amsgrad=True)

    def options(loop: Loop) -> list[dict[str, Any]]:
        names = ("betas", "eps", "amsgrad", "nesterov", "momentum")
        return [{name: group.get(name) for name in names} for group in loop.made.param_groups]

    loop.made = loop.optimizer = made()
    before = options(loop)
    change(loop, "sgd")
    key.apply(loop.optimization, 0.7)
    change(loop, "adagrad", "adamw")
    key.apply(loop.optimization, 0.9)
    restarted = Loop("sgd")
    restarted.made = restarted.optimizer = made()
    change(restarted, "adamw")
    names = ("betas", "eps", "amsgrad")
    assert [[group[name] for name in names] for group in loop.made.param_groups] == [
        [group[name] for name in names] for group in restarted.made.param_groups
    ]
    change(loop, "adam")
    assert [group["betas"] for group in before] == [group["betas"] for group in options(loop)]
    assert [(group["eps"], group["amsgrad"]) for group in options(loop)] == [(1e-4, True)] * 2


def test_nesterov_comes_back() -> None:
    loop = Loop("sgd")
    loop.made = loop.optimizer = torch.optim.SGD(
        loop.model.parameters(), lr=0.01, momentum=0.9, nesterov=True
    )
    change(loop, "adamw", "sgd")
    assert loop.made.param_groups[0]["nesterov"] is True


def test_nesterov_of_an_optimizer_before_forbids_nothing() -> None:
    loop, key = Loop("sgd"), Momentum()
    loop.made = loop.optimizer = torch.optim.SGD(
        loop.model.parameters(), lr=0.01, momentum=0.9, nesterov=True
    )
    change(loop, "adamw")
    for value in (0.0, None):
        key.apply(loop.optimization, value)
    assert momenta(loop) == [0.9]


@pytest.mark.parametrize("betas", [(0.85, 0.99), (0.0, 0.99)])
def test_what_the_program_made_comes_back_and_null_is_what_the_class_has(betas: tuple[float, float]) -> None:
    loop, key = Loop("adamw"), Momentum()
    loop.made = loop.optimizer = torch.optim.AdamW(loop.model.parameters(), lr=0.01, betas=betas)
    assert key.get(loop.optimization) == betas[0]
    change(loop, "adagrad", "adam", "sgd", "adamw")
    assert loop.made.param_groups[0]["betas"] == betas
    key.apply(loop.optimization, None)
    assert momenta(loop) == [0.9]


def test_null_is_the_same_however_one_came_to_it() -> None:
    """The program's SGD has 0.8; a rank that is restarted takes the config there in one step."""
    straight, around = (Loop("sgd") for _ in range(2))
    for loop in (straight, around):
        loop.made = loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.01, momentum=0.8)
        Momentum().apply(loop.optimization, None)
    change(around, "adamw", "sgd")
    assert momenta(straight) == momenta(around) == [0.0]


def test_decay_that_is_kept_is_told_and_null_is_none() -> None:
    loop, key = Loop("adamw"), WeightDecay()
    key.apply(loop.optimization, 0.07)
    change(loop, "rprop")
    assert key.get(loop.optimization) == 0.07, "the baseline of an attempt that goes on from a checkpoint"
    change(loop, "adamw")
    key.apply(loop.optimization, None)
    assert loop.made.param_groups[0]["weight_decay"] == 0.0


def test_what_was_kept_is_forgotten_by_an_undo() -> None:
    loop = Loop("rprop")
    before = [dict(group) for group in loop.made.param_groups]
    for key, values in ((Momentum(), (0.8, None)), (WeightDecay(), (0.2, None))):
        undos = [key.apply(loop.optimization, value) for value in values]
        for undo in reversed(undos):
            undo()
    assert [dict(group) for group in loop.made.param_groups] == before
