"""Where updates are, as seen from a peer that reached control. Pure."""


def updates_endpoint(told: str, control: str) -> str:
    """Return where to subscribe: as told, with the host of control where the broker leaves it open.

    >>> updates_endpoint("tcp://*:5556", "tcp://gpu-1:5555")
    'tcp://gpu-1:5556'
    """
    if not told.startswith("tcp://*:") or not control.startswith("tcp://"):
        return told
    host = control.removeprefix("tcp://").rpartition(":")[0]
    return f"tcp://{host}:{told.removeprefix('tcp://*:')}"
