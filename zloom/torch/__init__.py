"""Steering of an optimizer and its schedulers, in a loop that its user wrote. Importing it loads torch."""

try:
    from zloom.torch.loop import Steering, steer
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "zloom.torch needs torch, which is not installed here; pip install torch", name=error.name
    ) from error

__all__ = ["Steering", "steer"]
