"""Rank, world size and attempt, from whoever started the trainer."""

import socket
from collections import Counter

import pytest

from zloom.errors import SettingsError
from zloom.launch import (
    Group,
    Place,
    agent_serves_store,
    check_name,
    fresh_attempt,
    incarnation,
    initialised_group,
    lacks_store,
    remote_master,
    resolve_attempt,
    resolve_place,
    shared_store,
)
from zloom.model import NAME

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}
ALONE = Place(0, 1)


class Shared:
    """A store as `torch.distributed` has one, for ranks that run one after the other."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def add(self, key: str, amount: int) -> int:
        self.counts[key] += amount
        return self.counts[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        if self.values.get(key, "") == expected:
            self.values[key] = desired
        return self.values[key].encode()

    def delete_key(self, key: str) -> bool:
        return self.values.pop(key, None) is not None


@pytest.mark.parametrize(
    ("rank", "world_size", "environ", "group", "expected"),
    [
        (None, None, {}, None, Place(0, 1)),
        (1, 2, TORCHRUN, Group(0, 4), Place(1, 2)),
        (None, None, TORCHRUN, Group(2, 4), Place(2, 4)),
        (None, None, TORCHRUN, None, Place(3, 8)),
        (None, None, TORCHRUN | SRUN, None, Place(3, 8)),
        (None, None, SRUN, None, Place(2, 4)),
        (None, None, {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, None, Place(0, 1)),
        (None, 16, TORCHRUN, None, Place(3, 16)),
        (5, None, TORCHRUN, None, Place(5, 8)),
        (0, None, {}, None, Place(0, 1)),
        (None, 1, {}, None, Place(0, 1)),
        (None, 2, {"LOCAL_RANK": "1", "RANK": "1"}, None, Place(1, 2)),
    ],
)
def test_the_place_comes_from_the_first_source_that_knows_it(
    rank: int | None, world_size: int | None, environ: dict[str, str], group: Group | None, expected: Place
) -> None:
    assert resolve_place(rank, world_size, environ, group) == expected


@pytest.mark.parametrize(
    ("rank", "world_size", "environ", "complaint"),
    [
        (None, None, {"LOCAL_RANK": "0"}, r"LOCAL_RANK is set.*give world_size="),
        (None, None, {"RANK": "0"}, r"RANK is set.*give world_size="),
        (2, None, {}, r"rank is set.*give world_size="),
        (None, 2, {}, r"the rank is unknown; give rank="),
        (
            None,
            None,
            {"WORLD_SIZE": "2"},
            r"2 \(from \$WORLD_SIZE\).*expected \$RANK too.*unset \$WORLD_SIZE where this process is alone",
        ),
        (None, None, {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, r"\$SLURM_NTASKS.*expected \$SLURM_PROCID"),
        (2, 2, {}, r"expected 0 <= rank < world size"),
        (
            None,
            4,
            {"RANK": "4"},
            r"rank is 4 \(from \$RANK\) and world size 4 \(from world_size=\); expected",
        ),
        (-1, 2, {}, r"expected 0 <= rank < world size"),
        (None, None, {"RANK": "x", "WORLD_SIZE": "2"}, r"\$RANK is 'x'; expected an integer"),
    ],
)
def test_a_place_that_cannot_be_known_is_refused(
    rank: int | None, world_size: int | None, environ: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        resolve_place(rank, world_size, environ, None)


def test_the_attempt_is_the_argument_then_the_elastic_run() -> None:
    elastic = {"TORCHELASTIC_RUN_ID": "job-7"}
    assert resolve_attempt("mine", "run", ALONE, elastic, None) == "mine"
    assert resolve_attempt(None, "run", ALONE, elastic, None) == "job-7"


@pytest.mark.parametrize("environ", [{}, {"TORCHELASTIC_RUN_ID": "none"}])
def test_a_process_alone_makes_a_fresh_attempt_each_time(environ: dict[str, str]) -> None:
    made = {resolve_attempt(None, "run", ALONE, environ, None) for _ in range(10)}
    assert len(made) == 10


def test_ranks_share_the_attempt_of_rank_0_and_the_next_weavelet_has_another() -> None:
    store = Shared()

    def attempts() -> set[str]:
        return {resolve_attempt(None, "run", Place(rank, 3), {}, Group(rank, 3, store)) for rank in range(3)}

    first, second = attempts(), attempts()
    assert len(first) == len(second) == 1
    assert first != second


def test_a_rank_that_waits_for_rank_0_in_vain_is_told_what_to_do() -> None:
    class Timing(Shared):
        def get(self, key: str) -> bytes:
            raise RuntimeError("wait timeout after 300000ms")  # as torch's DistStoreError is one

    with pytest.raises(SettingsError, match=r"rank 0 shared no attempt.*300000ms.*on every rank"):
        resolve_attempt(None, "run", Place(1, 2), {}, Group(1, 2, Timing()))


def test_ranks_without_a_store_must_be_told() -> None:
    with pytest.raises(SettingsError, match=r"2 ranks need one attempt id.*give attempt="):
        resolve_attempt(None, "run", Place(0, 2), {}, None)


@pytest.mark.parametrize("name", ["", "a/b", "-x", "x" * 129])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"run is .*; expected 1 to 128 of letters"):
        check_name("run", name)
    with pytest.raises(SettingsError, match="attempt is"):
        resolve_attempt(name, "run", ALONE, {}, None)


def test_made_ids_are_names() -> None:
    assert NAME.fullmatch(fresh_attempt())
    assert NAME.fullmatch(incarnation(7))
    assert incarnation(7) != incarnation(7)


@pytest.mark.parametrize(
    ("broker", "environ", "warns"),
    [
        (None, {"MASTER_ADDR": "10.1.2.3"}, True),
        ("tcp://head:5555", {"MASTER_ADDR": "10.1.2.3"}, False),
        (None, {"MASTER_ADDR": "10.1.2.3", "ZLOOM_BROKER": "tcp://head:5555"}, False),
        (None, {"MASTER_ADDR": "127.0.0.1"}, False),
        (None, {"MASTER_ADDR": "localhost"}, False),
        (None, {"MASTER_ADDR": socket.gethostname()}, False),
        (None, {}, False),
    ],
)
def test_a_job_on_several_hosts_is_warned_when_no_broker_is_named(
    broker: str | None, environ: dict[str, str], warns: bool
) -> None:
    assert (remote_master(broker, environ) is not None) is warns


def test_no_name_server_is_asked_for_a_master_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: pytest.fail("it may take half a minute"))
    for master in ("127.0.0.1", "localhost", socket.gethostname()):
        assert remote_master(None, {"MASTER_ADDR": master}) is None


@pytest.mark.parametrize(
    ("world_size", "place", "group", "warns"),
    [
        (None, Place(3, 8), None, True),
        (None, Place(3, 8), Group(3, 8), True),
        (None, Place(3, 8), Group(1, 4, Shared()), True),
        (None, Place(3, 8), Group(3, 8, Shared()), False),
        (None, ALONE, None, False),
        (8, Place(3, 8), None, False),
    ],
)
def test_ranks_of_a_launcher_without_a_process_group_are_warned(
    world_size: int | None, place: Place, group: Group | None, warns: bool
) -> None:
    text = lacks_store(world_size, place, shared_store(place, group))
    assert (text is not None) is warns
    assert text is None or "make the weavelet after init_process_group" in text


def test_without_an_initialised_group_there_is_none() -> None:
    assert initialised_group() is None


@pytest.mark.parametrize(("value", "serves"), [(None, False), ("False", False), ("True", True)])
def test_torchrun_says_whether_its_agent_serves_the_store(value: str | None, serves: bool) -> None:
    environ = {} if value is None else {"TORCHELASTIC_USE_AGENT_STORE": value}
    assert agent_serves_store(environ) is serves
