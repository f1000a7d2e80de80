"""What `zloom doctor` makes of what it saw. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal

from zloom.cli.contact import HOST_ADVICE, unknown_host
from zloom.cli.report import duration
from zloom.messages import Stats
from zloom.model import GONE, ReplicaStatus
from zloom.words import MAX_NAMED, counted, named

GIB = 2**30

CLOCK_LIMIT = 2.0
"""Seconds by which clocks may differ: what a status and a busy machine explain."""

DISK_FULL = 0.02
"""Share of the disk that is free, from which down the journal is about to fail …"""

DISK_SHORT = 0.1
"""… and from which down somebody should look."""

LATE = 1.0
"""Seconds, a beat: a loop or a commit that takes longer makes peers doubt the broker."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was looked at, a word.
        state: `ok`; `warning`: somebody should look; `problem`: something does not work.
        text: What was seen.
        advice: What to do; empty where there is nothing to be done.
    """

    check: str
    state: Literal["ok", "warning", "problem"]
    text: str
    advice: str = ""


def of_broker(endpoint: str, latency: float) -> Finding:
    """Of a broker that answered within so many seconds."""
    return Finding("broker", "ok", f"{endpoint} answers within {duration(latency)}")


def of_silence(endpoint: str, listens: bool | None) -> Finding:
    """Of a broker that did not answer.

    Args:
        endpoint: Where it should be.
        listens: Whether some process takes connections there; None where that cannot be told.
    """
    if listens:
        text = f"something listens at {endpoint}, but does not answer as a broker does"
        return Finding(
            "broker", "problem", text, "see whether that is a `zloom broker`, and what its log says"
        )
    text = f"nobody listens at {endpoint}" if listens is False else f"no broker answers at {endpoint}"
    advice = "start one with `zloom broker`, or name another with --broker or ZLOOM_BROKER"
    if endpoint.startswith("tcp://"):
        advice += "; from another host, see that a firewall lets this port and the next one through"
    return Finding("broker", "problem", text, advice)


def of_unknown_host(endpoint: str, problem: str) -> Finding:
    """Of an endpoint whose host has no address here, in the system's words."""
    return Finding("broker", "problem", unknown_host(endpoint, problem), HOST_ADVICE)


def of_key(endpoint: str, key: str | None) -> Finding:
    """Of the key that a broker that answered was shown.

    Args:
        endpoint: Of the broker.
        key: The file of the key; None without one.
    """
    if not endpoint.startswith("tcp://"):
        return Finding("key", "ok", "this endpoint needs none: whoever may open it may steer")
    if key:
        return Finding("key", "ok", f"the broker knows the one in {key}")
    text = "the broker asks for none on TCP: whoever reaches it may steer"
    advice = "where others can reach it, start it without --no-auth, and give out keys with `zloom auth add`"
    return Finding("key", "warning", text, advice)


def of_refused_key(refusal: str) -> Finding:
    """Of the key, or the lack of one, that a broker did not take; in its words."""
    text, _, advice = refusal.partition("; ")
    return Finding("key", "problem", text, advice)


def of_clocks(ahead: float, replicas: Iterable[ReplicaStatus]) -> Iterator[Finding]:
    """Of the clocks of this host and of the replicas, against the broker's.

    Args:
        ahead: Seconds that this host's clock is ahead.
        replicas: Those that are there.
    """
    offsets = {"this host": ahead}
    offsets |= {each.host: each.clock for each in replicas if each.clock is not None}
    wrong = {host: offset for host, offset in offsets.items() if abs(offset) > CLOCK_LIMIT}
    for host, offset in wrong.items():
        way = "ahead of" if offset > 0 else "behind"
        text = f"the clock of {host} is {abs(offset):.0f} s {way} the broker's"
        yield Finding("clocks", "warning", text, "have NTP set the clocks of both hosts (see `timedatectl`)")
    if not wrong:
        yield Finding(
            "clocks", "ok", f"{counted(len(offsets), 'clock')} within {CLOCK_LIMIT:g} s of the broker's"
        )


def of_disk(gauges: Mapping[str, float]) -> Finding:
    """Of the disk that the journal is on."""
    free, total = gauges.get("disk_free_bytes"), gauges.get("disk_total_bytes")
    if free is None or not total:
        return Finding("disk", "warning", "the broker cannot tell how much room there is", "ask again")
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free for the journal"
    if free / total > DISK_SHORT:
        return Finding("disk", "ok", text)
    state: Literal["problem", "warning"] = "problem" if free / total <= DISK_FULL else "warning"
    advice = "make room on the disk of the broker's --data-dir; a full one refuses every change"
    return Finding("disk", state, text, advice)


def of_load(stats: Stats) -> Iterator[Finding]:
    """Of how the broker keeps up."""
    lag, commit = (stats.gauges.get(f"{name}_seconds_max", 0.0) for name in ("loop_lag", "commit"))
    failed = stats.counters.get("commits_failed", 0)
    if lag > LATE:
        text = f"the broker's loop was {lag:.1f} s late in the last minutes"
        yield Finding("load", "warning", text, "give it a core of its own; `zloom stats` tells what comes in")
    if commit > LATE:
        yield Finding("load", "warning", f"a commit took {commit:.1f} s", "put --data-dir on a local disk")
    if failed:
        text = f"{counted(failed, 'commit')} failed since the broker began"
        yield Finding("load", "warning", text, "see its log for the reason, and `zloom journal verify`")
    if not (lag > LATE or commit > LATE or failed):
        text = f"its loop is at most {duration(lag)} late, and a commit takes {duration(commit)} at most"
        yield Finding("load", "ok", text)


def of_runs(replicas: Sequence[ReplicaStatus]) -> Iterator[Finding]:
    """Of all replicas, those of the newest attempt first: which rank is lost that others may wait for, or has
    not come, who does not get on, who is slow, which run was lost as a whole."""
    there = [each for each in replicas if each.state not in GONE]
    found = [*_of_lost(replicas, there), *_of_absent(replicas, there)]
    found += [finding for each in there for finding in _of_replica(each)]
    found += _of_lost_runs(replicas, there)
    yield from found
    if not found:
        runs = len({_home(each) for each in there})
        told = f"{counted(runs, 'run')} with {counted(len(there), 'replica')}, none of them stuck"
        text = told if there else "none is there"
        yield Finding("runs", "ok", text)


def _of_lost(replicas: Sequence[ReplicaStatus], there: Sequence[ReplicaStatus]) -> Iterator[Finding]:
    held = {(*_home(each), each.rank) for each in there}
    sizes = {_home(each): each.world_size for each in there}  # an elastic job may have shrunk
    for each in replicas:
        lacks = each.rank < sizes.get(_home(each), 0) and (*_home(each), each.rank) not in held
        if each.state == "lost" and lacks:
            text = f"{_lost(each)}; the others may wait for it"
            yield Finding(
                "runs", "problem", text, "see what became of that process, and end or restart the job"
            )


def _of_absent(replicas: Sequence[ReplicaStatus], there: Sequence[ReplicaStatus]) -> Iterator[Finding]:
    for home, size in {_home(each): each.world_size for each in there}.items():
        heard = {each.rank for each in replicas if _home(each) == home}
        # Not all of them: a replica may say any world size.
        first = list(islice((rank for rank in range(size) if rank not in heard), MAX_NAMED))
        if first:
            count = size - sum(rank < size for rank in heard)
            more = f" and {count - len(first)} more" if count > len(first) else ""
            verb = "has" if count == 1 else "have"
            text = f"{named(first)}{more} of {home[0]} {verb} not come: it has {size} ranks"
            advice = (
                "what needs all ranks, as pause and stop, is refused until then: see whether that process "
                f"runs, and reaches this broker as attempt {home[1]} of {home[0]}"
            )
            yield Finding("runs", "warning", text, advice)


def _of_lost_runs(replicas: Sequence[ReplicaStatus], there: Sequence[ReplicaStatus]) -> Iterator[Finding]:
    """Yield the runs in which nobody is any more, and which did not end."""
    trained = {each.run for each in there}
    newest: dict[str, str] = {}
    for each in replicas:
        newest.setdefault(each.run, each.attempt)
    for run, attempt in newest.items():
        last = [each for each in replicas if _home(each) == (run, attempt)]
        if run not in trained and all(each.state == "lost" for each in last):
            advice = (
                "see what became of that process, and start it again; "
                f"`zloom forget {run} --attempt {attempt}` ends this warning"
            )
            more = f", and {counted(len(last) - 1, 'other rank')} too" if len(last) > 1 else ""
            yield Finding("runs", "warning", f"{_lost(last[0])}{more}; nobody trains in {run}", advice)


def _lost(status: ReplicaStatus) -> str:
    where = f"on {status.host} (pid {status.pid})"
    return f"rank {status.rank} of {status.run} is lost ({status.reason}){_at_step(status)} {where}"


def _at_step(status: ReplicaStatus) -> str:
    return "" if status.step is None else f" at step {status.step}"


def _of_replica(status: ReplicaStatus) -> Iterator[Finding]:
    who = f"rank {status.rank} of {status.run}"
    look = f"see where it is: zloom stacks {status.run} --rank {status.rank}"
    if status.state == "stalled":
        yield Finding("runs", "problem", f"{who} is stalled{_at_step(status)}", look)
    elif status.state == "unresponsive":
        text = f"{who} on {status.host} does not answer; its GIL is held, or it is stopped"
        yield Finding("runs", "problem", text, f"{look}, on {status.host}")
    if status.straggles:
        yield Finding("runs", "warning", f"{who} makes the others wait: {status.straggles}", look)


def of_config(replicas: Sequence[ReplicaStatus]) -> Iterator[Finding]:
    """Of the values in force: whether all ranks of each attempt have the same."""
    found = []
    for (run, _), members in groupby(sorted(replicas, key=_home), key=_home):
        ranks = [each for each in members if each.values]
        # On a ramp each step has a value of its own, and ranks tell of different steps.
        ramped = {name for each in ranks for name in each.ramps}
        for key in sorted({name for each in ranks for name in each.values} - ramped):
            groups: dict[int, list[int]] = {}
            for each in sorted(ranks, key=lambda each: each.rank):
                if key in each.values:
                    groups.setdefault(each.values[key], []).append(each.rank)
            if len(groups) > 1:
                said = " and ".join(f"rank {', '.join(map(str, members))}" for members in groups.values())
                text = f"{run}: {key} is not the same on {said}"
                advice = f"see `zloom history {run}`, and set it again for all: zloom set {run} {key}=…"
                found.append(Finding("config", "problem", text, advice))
    yield from found or [Finding("config", "ok", "all ranks of each run have the same values")]


def _home(status: ReplicaStatus) -> tuple[str, str]:
    return status.run, status.attempt


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield what is printed: a line for each, and one for what to do."""
    for finding in findings:
        yield f"{finding.state:<8} {finding.check:<7} {finding.text}"
        if finding.advice:
            yield f"{'':<16} → {finding.advice}"
