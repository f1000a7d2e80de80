"""A broker in a process of its own for a module of tests, and a run for each."""

import secrets
from collections.abc import Iterator

import pytest

from tests.support import operator_of
from zloom.client import SyncOperator


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncOperator]:
    with operator_of(tmp_path_factory.mktemp("broker")) as connected:
        yield connected


@pytest.fixture
def run() -> str:
    return f"test-{secrets.token_hex(4)}"
