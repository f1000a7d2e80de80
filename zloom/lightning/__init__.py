"""Steering of a Lightning Trainer. Importing it loads torch and lightning; `import zloom` does not."""

from zloom.lightning.callback import WeaveletCallback

__all__ = ["WeaveletCallback"]
