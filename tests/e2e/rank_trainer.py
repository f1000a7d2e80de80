"""One rank of a training in lockstep, in a process of its own: each step ends with a collective of all.

It appends what happens to a file, one JSON object a line: `{"step", "rate"}` for each call of the handler,
and `{"unequal"}` for a step at which the ranks trained with different rates.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist

import zloom


@dataclass(frozen=True)
class Plan:
    """What one rank does.

    Attributes:
        broker: Endpoint.
        log: File to append to.
        rank: Its number.
        world_size: How many there are.
        port: Where rank 0 opens the store.
        has_store: Whether the ranks decide by their store; otherwise the broker does.
        bad: A rate at which its handler raises; at -1 its checkpoint does.
    """

    broker: str
    log: Path
    rank: int
    world_size: int
    port: int
    has_store: bool = True
    bad: float = 0.0


def main(plan: Plan) -> None:
    """Train until told to stop."""
    if not plan.has_store:  # a weavelet that is made before the group knows of none
        weavelet = _weavelet(plan)
    address = f"tcp://127.0.0.1:{plan.port}"
    dist.init_process_group("gloo", init_method=address, rank=plan.rank, world_size=plan.world_size)
    if plan.has_store:
        weavelet = _weavelet(plan)
    with plan.log.open("a", buffering=1) as log:
        train(weavelet, log, plan.bad)
    dist.destroy_process_group()


def _weavelet(plan: Plan) -> zloom.Weavelet:
    return zloom.Weavelet(
        "ranks", broker=plan.broker, attempt="one", rank=plan.rank, world_size=plan.world_size
    )


def train(weavelet: zloom.Weavelet, log: Any, bad: float) -> None:
    going, rate = True, 1.0

    @weavelet.on_config("rate", initial=rate)
    def set_rate(value: Annotated[float, zloom.Meta(gt=0, le=100)]) -> None:
        nonlocal rate
        if value == bad:
            raise ValueError("too hot")
        rate = value
        log.write(json.dumps({"step": weavelet.step, "rate": value}) + "\n")

    @weavelet.on_command("stop")
    def stop() -> None:
        nonlocal going
        going = False

    @weavelet.on_command("checkpoint")
    def checkpoint() -> str:
        if bad == -1.0:
            raise OSError("disk full")
        return f"/step-{weavelet.step}.ckpt"

    with weavelet:
        while going:
            weavelet.tick()
            rates = torch.tensor([rate, -rate], dtype=torch.float64)
            dist.all_reduce(rates, dist.ReduceOp.MAX)
            if rates[0] != -rates[1]:
                log.write(json.dumps({"unequal": weavelet.step}) + "\n")
