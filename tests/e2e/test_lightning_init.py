"""What `import zloom.lightning` says where something is missing."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import zloom
print("zloom is there")
import zloom.lightning
"""


def blocked(name: str) -> tuple[str, str]:
    """Import zloom and zloom.lightning where `name` is missing; return what was printed, and the error."""
    command = [sys.executable, "-c", BLOCKED, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    return done.stdout, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["torch", "lightning"])
def test_it_says_how_to_install_what_is_missing(name: str) -> None:
    printed, error = blocked(name)
    assert printed == "zloom is there\n"
    assert error.startswith(f"ModuleNotFoundError: zloom.lightning needs {name}, ")
    assert error.endswith("pip install 'zloom[lightning]'")


def test_what_is_missing_for_another_reason_is_named_as_it_is() -> None:
    assert blocked("zloom.lightning.keys")[1] == "ModuleNotFoundError: No module named 'zloom.lightning.keys'"
