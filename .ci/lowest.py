"""Say what `make lowest` installs and runs: the oldest releases that pyproject.toml allows, without torch.

`python .ci/lowest.py pins` prints requirements; the tools of the tests come at their usual versions.
`python .ci/lowest.py tests` prints the test files that need neither torch nor what comes with it.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")

EXTRAS = ("gpu", "metrics")
"""What is light enough to be installed."""

HEAVY = {"torch", "lightning", "transformers", "accelerate", "matplotlib", "numpy", "examples", "bench"}
"""What is not installed, or needs what is not."""

PLACES = ("tests/unit", "tests/shell", "tests/e2e/test_bare_client.py", "tests/e2e/test_cli.py")


def pins() -> list[str]:
    """Return the lower bound of each dependency of a trainer and a broker, and the pins of the tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    tools = [line for line in pinned if line.partition("==")[0] in TOOLS]
    return [_lowest(requirement) for requirement in wanted] + tools


def _lowest(requirement: str) -> str:
    found = re.fullmatch(r"([\w-]+)>=([\w.]+)(,.*)?", requirement)
    if found is None:
        sys.exit(f"pyproject.toml: {requirement!r} has no lower bound; expected NAME>=VERSION first")
    return f"{found[1]}=={found[2]}"


def light_tests() -> list[str]:
    """Return the test files that import nothing heavy, themselves or through others of the tests."""
    files = [file for place in PLACES for file in _files(ROOT / place)]
    return [str(file.relative_to(ROOT)) for file in files if not _imports(file) & HEAVY]


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("test_*.py")) if place.is_dir() else [place]


@cache
def _imports(file: Path) -> frozenset[str]:
    """Return the packages that a file imports, and those that the tests' modules among them import."""
    found: set[str] = set()
    for name in _names(ast.parse(file.read_text())):
        module = ROOT / Path(*name.split(".")).with_suffix(".py")
        if name.startswith("tests.") and module.is_file() and module != file:
            found |= _imports(module)
        found.add(name.partition(".")[0])
    return frozenset(found)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    print("\n".join({"pins": pins, "tests": light_tests}[sys.argv[1]]()))
