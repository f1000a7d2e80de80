"""What a trainer reports of a metric at a step: a number, a tensor that is one, or its copy on the way."""

import sys
from typing import Any

from zloom.cuda_copies import Copy, CopyPool

Reading = float | int | Copy


def read(value: Any, copies: CopyPool) -> Reading:
    """Return the number that a value is, or its copy on the way; raises whatever its type raises."""
    # Whoever has a tensor has imported torch; whoever has none need not.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _read_tensor(torch, value, copies)
    if getattr(value, "ndim", 0):
        raise TypeError(f"it must be one number, got an array of shape {value.shape}")
    if not hasattr(value, "__float__"):
        raise TypeError(f"it must be a number, got {type(value).__name__}")
    return float(value)


def _read_tensor(torch: Any, tensor: Any, copies: CopyPool) -> Reading:
    if tensor.numel() != 1:
        raise TypeError(f"it must be one number, got a tensor of shape {tuple(tensor.shape)}")
    if type(tensor) is not torch.Tensor and hasattr(tensor, "full_tensor"):
        # Reading it would be a collective, which hangs unless every rank reports the same.
        raise TypeError("it is a distributed tensor; report its full_tensor() or to_local()")
    if tensor.is_cuda:
        return copies.start(torch, tensor)
    return float(tensor.item())


def read_in_place(metrics: dict[str, Any]) -> None:
    """Put the number that it is in the place of each value, but of those that are none. Never raises."""
    for name, value in metrics.items():
        try:
            metrics[name] = float(value)
        except Exception:  # noqa: BLE001 - who takes the row counts it
            continue
