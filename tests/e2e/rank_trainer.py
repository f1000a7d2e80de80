"""One rank of a training in lockstep, run as a process of its own: each step ends with a collective of all.

It appends what happens to a file, one JSON object a line: `{"step", "rate"}` for each call of the handler,
and `{"unequal"}` for a step at which the ranks trained with different rates.
"""

import argparse
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist

import zloom


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("log", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--no-store", action="store_true", help="Leave the decisions to the broker.")
    parser.add_argument("--bad", type=float, default=0.0, help="A rate at which this rank's handler raises.")
    arguments = parser.parse_args()
    address = f"tcp://127.0.0.1:{arguments.port}"
    place = {"rank": arguments.rank, "world_size": arguments.world_size}
    if arguments.no_store:  # a weavelet that is made before the group knows of none
        weavelet = zloom.Weavelet("ranks", broker=arguments.broker, attempt="one", **place)
        dist.init_process_group("gloo", init_method=address, **place)
    else:
        dist.init_process_group("gloo", init_method=address, **place)
        weavelet = zloom.Weavelet("ranks", broker=arguments.broker, attempt="one", **place)
    with arguments.log.open("a", buffering=1) as log:
        train(weavelet, log, arguments.bad)
    dist.destroy_process_group()


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


if __name__ == "__main__":
    main()
