"""Real text that every machine has: the source of Python's own standard library, as bytes."""

import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset


class SourceText(Dataset[tuple[Tensor, Tensor]]):
    """Windows of text, each with the bytes that follow: two int64 tensors of shape (context,).

    The last `held_out` of the text, a fraction, is kept for the data set made with `validation=True`.
    """

    def __init__(self, context: int, validation: bool = False, held_out: float = 0.05) -> None:
        text = read_standard_library()
        split = int(len(text) * (1 - held_out))
        self.text = text[split:] if validation else text[:split]
        self.context = context

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.context
        window = self.text[start : start + self.context + 1].long()
        return window[:-1], window[1:]


def read_standard_library() -> Tensor:
    """Return the bytes of the standard library's top-level modules (some 5 MB), uint8."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = sorted(folder.glob("*.py"))
    return as_bytes(b"".join(path.read_bytes() for path in sources))


def as_bytes(text: bytes) -> Tensor:
    """Return a text as uint8."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def draw_batch(text: Tensor, size: int, context: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return windows of a text, and the bytes that follow each of theirs: int64 of shape (size, context)."""
    starts = torch.randint(len(text) - context, (size, 1), generator=random)
    windows = text[starts + torch.arange(context + 1)].long()
    return windows[:, :-1], windows[:, 1:]
