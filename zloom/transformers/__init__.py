"""Steering of a Hugging Face Trainer. Importing it loads torch and transformers; `import zloom` does not."""

try:
    from zloom.transformers.callback import WeaveletCallback
except ModuleNotFoundError as error:
    if error.name not in ("torch", "transformers", "accelerate"):
        raise
    raise ModuleNotFoundError(
        f"zloom.transformers needs {error.name}, which is not installed here; "
        "pip install 'zloom[transformers]'",
        name=error.name,
    ) from error

__all__ = ["WeaveletCallback"]
