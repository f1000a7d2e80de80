"""Which process of which launch this is: rank, world size and attempt, from whoever started the trainer."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from zloom.errors import SettingsError
from zloom.model import NAME, NAME_RULE
from zloom.settings import BROKER_VARIABLE
from zloom.store_register import Store

_LOCAL = ("localhost", "ip6-localhost", "::1", "0.0.0.0")


@dataclass(frozen=True, slots=True)
class Group:
    """What an initialised process group says: rank, world size, and the store that its ranks share."""

    rank: int
    world_size: int
    store: Store | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A rank below a world size."""

    rank: int
    world_size: int


def initialised_group() -> Group | None:
    """Return the default process group of `torch.distributed`, or None; torch is not imported for it."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    store: Store = distributed.distributed_c10d._get_default_store()
    return Group(distributed.get_rank(), distributed.get_world_size(), store)


def agent_serves_store(environ: Mapping[str, str]) -> bool:
    """Return whether the group's store is that of torchrun's agent, which outlives the ranks.

    The variable is torchelastic's, and counts where the group was made from the environment.
    """
    return environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def resolve_place(
    rank: int | None, world_size: int | None, environ: Mapping[str, str], group: Group | None
) -> Place:
    """Return rank and world size: arguments, then the process group, RANK and WORLD_SIZE, and Slurm's.

    Slurm's variables count only under `srun`: in a batch script they describe the allocation, and a plain
    `python` there is one process. A world size is never taken to be 1 when a launcher left its marks.

    Raises:
        SettingsError: One of the two cannot be known, or they do not fit.
    """
    srun = "SLURM_STEP_ID" in environ
    found_rank, rank_from = _first(
        ("rank=", rank),
        ("the process group", group.rank if group else None),
        ("$RANK", _number(environ, "RANK")),
        ("$SLURM_PROCID", _number(environ, "SLURM_PROCID") if srun else None),
    )
    found_size, size_from = _first(
        ("world_size=", world_size),
        ("the process group", group.world_size if group else None),
        ("$WORLD_SIZE", _number(environ, "WORLD_SIZE")),
        ("$SLURM_NTASKS", _number(environ, "SLURM_NTASKS") if srun else None),
    )
    if found_size is None:
        found_size = _assume_alone(found_rank, environ)
    if found_rank is None:
        found_rank = _assume_first(found_size, size_from)
    if not 0 <= found_rank < found_size:
        raise SettingsError(
            f"rank is {found_rank}{_from(rank_from)} and world size {found_size}{_from(size_from)}; expected "
            "0 <= rank < world size"
        )
    return Place(found_rank, found_size)


def _first(*sources: tuple[str, int | None]) -> tuple[int | None, str]:
    """Return the first number that is known, and the name of its source."""
    return next(((value, name) for name, value in sources if value is not None), (None, ""))


def _from(source: str) -> str:
    return f" (from {source})" if source else ""


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"${name} is {text!r}; expected an integer") from None


def _assume_alone(rank: int | None, environ: Mapping[str, str]) -> int:
    if rank or "LOCAL_RANK" in environ or "RANK" in environ:
        sign = next((name for name in ("LOCAL_RANK", "RANK") if name in environ), "rank")
        raise SettingsError(f"{sign} is set, but the world size is unknown; give world_size=")
    return 1


def _assume_first(world_size: int, source: str) -> int:
    if world_size > 1:
        lacks = {"$WORLD_SIZE": "$RANK", "$SLURM_NTASKS": "$SLURM_PROCID"}.get(source)
        mend = "give rank="
        if lacks:
            mend = (
                f"expected {lacks} too: set it or give rank= on each rank, or unset {source} where this "
                "process is alone"
            )
        raise SettingsError(f"world size is {world_size}{_from(source)}, but the rank is unknown; {mend}")
    return 0


def resolve_attempt(
    attempt: str | None, run: str, place: Place, environ: Mapping[str, str], group: Group | None
) -> str:
    """Return the attempt: the argument, torchelastic's run id, or an id made here.

    On several ranks rank 0 makes the id and shares it in the process group's store; the others wait for it,
    for as long as the store's time-out is.

    Raises:
        SettingsError: The id cannot be shared, or is no name.
    """
    elastic = environ.get("TORCHELASTIC_RUN_ID", "none")
    if attempt is not None:
        return check_name("attempt", attempt)
    if elastic not in ("", "none"):
        return check_name("$TORCHELASTIC_RUN_ID", elastic)
    if place.world_size == 1:
        return fresh_attempt()
    if group is None or group.store is None:
        raise SettingsError(
            f"{place.world_size} ranks need one attempt id between them; initialise torch.distributed before "
            "the weavelet, or give attempt= the same value on every rank"
        )
    return _share_attempt(group.store, run, place.rank)


def _share_attempt(store: Store, run: str, rank: int) -> str:
    # Ranks make their weavelets in the same order, so the nth of a run on each rank belong together.
    count = store.add(f"zloom/{run}/weavelets/{rank}", 1)
    key = f"zloom/{run}/attempt/{count}"
    if rank == 0:
        store.set(key, fresh_attempt())
    try:
        shared = store.get(key)
    except RuntimeError as error:  # torch's DistError, and its time-out
        raise SettingsError(
            f"rank 0 shared no attempt id for run {run!r}: {error}; make the weavelet on every rank, "
            "in the same order, or give attempt= the same value on each"
        ) from error
    return check_name("attempt", shared.decode())


def fresh_attempt() -> str:
    """Return an id for a new attempt: UTC time to the second, so that it sorts, and 24 random bits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def check_name(what: str, name: str) -> str:
    """Return the name if it may be one.

    Raises:
        SettingsError: It may not; the text says what may.
    """
    if not NAME.fullmatch(name):
        raise SettingsError(f"{what} is {name[:200]!r}; expected {NAME_RULE}")
    return name


def remote_master(broker: str | None, environ: Mapping[str, str]) -> str | None:
    """Return a warning when the job spans hosts and no broker was named: the default serves one host only."""
    master = environ.get("MASTER_ADDR", "")
    if broker or environ.get(BROKER_VARIABLE) or not master:
        return None
    here = socket.gethostname()
    # Asked last, because a name server that is gone takes its time.
    if master in (*_LOCAL, here) or master.startswith("127.") or master == socket.getfqdn():
        return None
    return (
        f"MASTER_ADDR is {master}, another host, but no broker was named: only the broker of this user on "
        f"{here} is looked for; set ${BROKER_VARIABLE} or give broker= on every host"
    )


def shared_store(place: Place, group: Group | None) -> Store | None:
    """Return the store that all ranks share, or None where there is none."""
    return group.store if group is not None and group.world_size == place.world_size else None


def lacks_store(world_size: int | None, place: Place, store: Store | None) -> str | None:
    """Return a warning when a launcher started several ranks that share no store, as without a process group.

    Args:
        world_size: As it was given; who gives it may have no group at all.
        place: What was found.
        store: That all ranks share, if there is one.
    """
    if world_size is not None or place.world_size == 1 or store is not None:
        return None
    return (
        f"{place.world_size} ranks, but torch.distributed is not initialised: they share no store in which "
        "to decide about changes at one step, so the broker decides for them, and while it is gone "
        "they hold; make the weavelet after init_process_group, or give world_size= where there is no "
        "process group"
    )


def incarnation(rank: int) -> str:
    """Return a fresh id for this process as a replica; the rank and pid in it are for people's eyes."""
    return f"r{rank}-{os.getpid()}-{secrets.token_hex(4)}"
