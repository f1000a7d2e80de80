"""One rank of a training in lockstep of which one gets stuck: the others wait for it in a collective."""

import threading

import torch
import torch.distributed as dist

import zloom

STUCK_AT = 12
"""The step that the stuck rank does not end."""


def main(broker: str, port: int, rank: int, world_size: int, stuck: int) -> None:
    """Train until killed."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    lock = threading.Lock()
    with zloom.Weavelet("stuck", broker=broker, attempt="one", rank=rank, world_size=world_size) as weavelet:
        weavelet.wait_until_active(60)
        while True:
            weavelet.tick()
            if weavelet.step >= STUCK_AT and rank == stuck:
                read_data(lock)
            exchange()


def read_data(lock: threading.Lock) -> None:
    with lock, lock:  # never gets the second one
        pass


def exchange() -> None:
    threading.Event().wait(0.2)  # a step long enough for its pace to be seen
    dist.all_reduce(torch.ones(1))
