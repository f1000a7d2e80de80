"""A disk that fails when it is told to: a library between a process and libc, so that SQLite meets it too."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

SOURCE = Path(__file__).with_name("disk.c")

Failing = Literal["nothing", "EIO", "no room", "fsync", "head", "slow fsync"]

LETTERS: dict[Failing, str] = {
    "nothing": "0",
    "EIO": "E",
    "no room": "N",
    "fsync": "F",
    "head": "H",
    "slow fsync": "S",
}

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


class FaultyDisk:
    """What a process sees of a folder, once it runs in `environment`.

    Args:
        place: Where the library and the file that tells it what to do are kept.
        folder: Whose files are concerned.
    """

    def __init__(self, place: Path, folder: Path) -> None:
        self._control = place / "failing"
        self._library = place / "disk.so"
        self._folder = folder
        self.fail("nothing")
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTY_DISK": str(self._control),
            "FAULTY_FOLDER": str(self._folder),
        }

    def fail(self, what: Failing) -> None:
        """From now on this fails, and nothing else."""
        fresh = self._control.with_suffix(".new")
        fresh.write_text(LETTERS[what])
        os.replace(fresh, self._control)
