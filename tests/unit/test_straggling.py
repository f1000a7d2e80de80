"""Which ranks make the others wait."""

import pytest

from tests.unit.broker_support import Bench, events, published, sent
from zloom import messages as m
from zloom.model import Phase
from zloom_broker import pulse
from zloom_broker.straggling import PERSISTENCE, Pace, find


def paces(*steps: int, waiting: tuple[float | None, ...] = (), step_time: float | None = 1.0) -> list[Pace]:
    shares = waiting or (None,) * len(steps)
    return [Pace(f"r{n}", n, steps[n], step_time, shares[n]) for n in range(len(steps))]


@pytest.mark.parametrize(
    ("ranks", "named"),
    [
        (paces(9, 9, 9, waiting=(0.9, 0.0, 0.5)), {"r1"}),
        (paces(9, 9, 9, 9, waiting=(0.9, 0.0, 0.1, 0.5)), {"r1", "r2"}),
        (paces(9, 9, 9, waiting=(0.9, 0.2, 0.5)), set()),
        (paces(9, 9, 9, waiting=(0.4, 0.0, 0.4)), set()),
        (paces(9, 9, 9, waiting=(0.9, 0.9, 0.9)), set()),
        (paces(9, 9, 9, waiting=(0.0, 0.0, 0.9)), set()),
        (paces(9, 9, waiting=(None, 0.9)), set()),
        (paces(9, waiting=(0.0,)), set()),
        (paces(9, 6, 9), {"r1"}),
        (paces(9, 8, 9, step_time=60.0), set()),
        (paces(99, 60, 99, step_time=0.01), set()),
        (paces(9, 1, 1), set()),
        (paces(9, 1, step_time=None), set()),
        (paces(9), set()),
        ([], set()),
    ],
)
def test_who_makes_the_others_wait(ranks: list[Pace], named: set[str]) -> None:
    assert find(ranks).keys() == named


def test_why_is_said() -> None:
    assert find(paces(9, 9, 9, waiting=(0.9, 0.0, 0.5))) == {
        "r1": "ranks 0, 2 wait in collectives, and it does not"
    }
    assert find(paces(9, 9, waiting=(0.9, 0.0)))["r1"] == "rank 0 waits in collectives, and it does not"
    assert find(paces(9, 6, 9)) == {"r1": "it is 3 steps behind rank 0"}


class Job:
    """Two ranks that report once a second, and answer their pings."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.seq = 0
        self.bench.operator()
        for rank, name in enumerate("ab"):
            self.bench.active(name, rank=rank, world_size=2)
            self.bench.subscription(f"echo/n-{name}/".encode(), present=True)

    def run(self, seconds: int, *, waits: str, phase: Phase = "training") -> list[str]:
        """Let time pass, while ranks wait as told; return what was said of stragglers."""
        said = []
        for _ in range(seconds):
            self.seq += 1
            effects = self.bench.advance(1.0)
            for name in "ab":
                peer = name.encode()
                for ping in sent(effects, peer):
                    if isinstance(ping, m.Ping):
                        self.bench.receive(peer, m.Pong(id=ping.id, received=1))
                status = m.Status(
                    seq=self.seq, step=self.seq, step_time=1.0, waits=name in waits, phase=phase
                )
                self.bench.receive(peer, status)
            for told in published(effects, b"watch/run/"):
                if isinstance(told, m.Happened) and told.event.kind in ("straggler", "caught_up"):
                    said.append(told.event.text)
        return said

    def straggles(self) -> list[str]:
        (answer,) = sent(self.bench.receive(b"op", m.GetReplicas(id="r")))
        assert isinstance(answer, m.Replicas)
        return [replica.straggles for replica in answer.replicas]


def test_it_is_told_once_when_it_has_lasted_and_when_it_is_over() -> None:
    job = Job()
    assert job.run(4 + round(PERSISTENCE), waits="a") == []
    assert job.run(10, waits="a") == [
        "rank 1 makes the others wait: rank 0 waits in collectives, and it does not"
    ]
    assert job.straggles() == ["", "rank 0 waits in collectives, and it does not"]
    assert job.run(10, waits="ab") == ["rank 1 no longer makes the others wait"]
    assert job.straggles() == ["", ""]


def test_a_rank_that_saves_makes_nobody_wait_unduly() -> None:
    assert Job().run(30, waits="a", phase="saving") == []


def test_ranks_in_step_are_no_stragglers_where_the_beat_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their statuses are up to a beat apart, and so are the steps that these tell."""
    monkeypatch.setattr(pulse, "SMALL_FLEET", 0.1)
    bench = Bench()
    for rank, name in enumerate("ab"):
        bench.active(name, rank=rank, world_size=2)
    bench.advance(60.0)
    beats: list[m.Message] = []
    while not beats:
        beats = published(bench.advance(bench.core.next_timer() - bench.now), b"beat/")
    assert [each.beat for each in beats if isinstance(each, m.Beat)] == [pulse.MAX_STRETCH]
    told = []
    for seq in range(6):
        for name, seconds in (("b", 0.5), ("a", 4.0)):  # then half a second to the beat
            told += events(bench.advance(seconds))
            step = int(10 * bench.now)
            told += events(bench.receive(name.encode(), m.Status(seq=seq, step=step, step_time=0.1)))
        told += events(bench.advance(0.5))
    assert "straggler" not in told
