"""Steering of a Lightning Trainer. Importing it loads torch and lightning; `import zloom` does not."""

try:
    from zloom.lightning.callback import WeaveletCallback
except ModuleNotFoundError as error:
    if error.name not in ("torch", "lightning"):
        raise
    raise ModuleNotFoundError(
        f"zloom.lightning needs {error.name}, which is not installed here; pip install 'zloom[lightning]'",
        name=error.name,
    ) from error

__all__ = ["WeaveletCallback"]
