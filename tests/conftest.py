"""What holds for all tests: torch's threads, Hypothesis' examples, and the form of the fault matrix."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.faults import table

# Before torch is imported, and for every process that a test starts: the threads of several ranks would
# spend their time waiting for each other on the few cores that there are.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell has its background jobs ignore it, and so would the processes that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite tries the same examples each time. It does not shrink one that fails, which for a state machine
# takes longer than a test may: `--hypothesis-profile=soak` does, and tries many more.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("soak", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _hang_up_ends_processes() -> None:
    """Under `nohup` the processes that a test starts would ignore it. Those that run no test may."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fault matrix."""
    group = parser.getgroup("faults")
    group.addoption("--faults", choices=["short", "long"], default="short", help="How much of them to try")
    group.addoption("--faults-table", type=Path, help="Where to write the table of faults and guarantees")


def pytest_configure(config: pytest.Config) -> None:
    """Have the table written by the process that hears of all tests."""
    path: Path | None = config.getoption("--faults-table")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(table.FaultTable(path, config.getoption("--faults")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests of faults carry their row of the table."""
    table.mark(items)
