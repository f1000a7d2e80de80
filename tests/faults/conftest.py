"""What tests of faults share: the form that is tried, and the tally for the table."""

import pytest

from tests.faults.table import Tally


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where a test tells what it saw held."""
    return Tally(request.node)


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for, which takes many minutes."""
    return bool(request.config.getoption("--faults") == "long")
