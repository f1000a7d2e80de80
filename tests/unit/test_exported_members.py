"""What `zloom` offers is what `zloom.__all__` says."""

import subprocess
import sys
from types import ModuleType

import pytest

import zloom
from zloom import errors


def test_exported_members_are_sorted_and_named_once() -> None:
    assert zloom.__all__ == sorted(set(zloom.__all__))


@pytest.mark.parametrize("name", zloom.__all__)
def test_each_exported_member_is_there_and_documented(name: str) -> None:
    member = getattr(zloom, name)
    assert not isinstance(member, ModuleType)
    assert name == "__version__" or member.__doc__


def test_nothing_public_is_left_out() -> None:
    machinery = {"Any", "TYPE_CHECKING", "import_module"}
    at_once = {
        name
        for name, value in vars(zloom).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in machinery
    }
    assert at_once | zloom._LATER.keys() == set(zloom.__all__) - {"__version__"}


def test_every_error_can_be_caught_by_its_name() -> None:
    raised = {name for name, each in vars(errors).items() if isinstance(each, type)}
    assert raised - set(zloom.__all__) == set()


def test_a_star_imports_them_in_a_fresh_interpreter() -> None:
    code = "from zloom import *; import zloom; print(*(set(zloom.__all__) - set(globals())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_dir_names_what_is_loaded_at_first_use() -> None:
    assert set(zloom.__all__) <= set(dir(zloom))


def test_what_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zloom' has no attribute 'Weevil'"):
        zloom.Weevil  # noqa: B018 - looking it up is the test
