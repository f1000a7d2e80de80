"""Ranks without a store, and a backup of the journal that is restored amid a consistent update."""

from tests.unit.pair_support import World
from tests.unit.pair_trainer import Trainer
from zloom.messages import Hello, SetConfig
from zloom_broker.conclusions import NOT_IN_BACKUP
from zloom_broker.records import RevisionAgreed, decode_record

TURN = 0.05
"""Seconds between two looks of everybody."""


class Rank(Trainer):
    """A rank that takes a step at each safe point, unless it holds there."""

    def safe_point(self) -> None:
        if self.training.mailbox.holding:
            self.training.step -= 1
        super().safe_point()


class Job:
    """Two ranks, of which each can be busy with a long step, and its connection slow."""

    def __init__(self) -> None:
        self.world = World()
        self.ranks = [Rank(self.world, f"t{rank}", rank, 2) for rank in range(2)]
        self.busy: set[Rank] = set()
        self.away: set[Rank] = set()
        for rank in self.ranks:
            rank.start()
        self.live(3.0)

    def live(self, seconds: float) -> None:
        """Let time pass."""
        world, end = self.world, self.world.now + seconds
        while world.now < end:
            world.now += TURN
            if world.broker is not None and world.broker.next_timer() <= world.now:
                world.carry_out(world.broker.on_timer(world.now, 1e6 + world.now, {}, {}))
            for rank in self.ranks:
                if rank not in self.away:
                    self._look(rank)
            world.flush()

    def _look(self, rank: Rank) -> None:
        if rank not in self.busy:
            rank.safe_point()
        rank.post()
        due = rank.next_timer()
        if due is not None and due <= self.world.now:
            rank.on_timer()

    def set(self, rate: float) -> None:
        """Change the rate on all ranks at one step."""
        broker, operator = self.world.broker, self.world.network.connect().identity
        assert broker is not None
        request = SetConfig(id="q", run="run", changes={"rate": rate}, mode="consistent")
        for message in (Hello(protocols=[1], role="operator", user="u"), request):
            self.world.carry_out(broker.receive(operator, message, self.world.now))
        self.world.flush()

    def lose_the_agreement(self) -> None:
        """Restart the broker on a backup that has the revision and not that the ranks agreed on it."""
        rows = [decode_record(row) for row in self.world.disk.rows]
        agreed = next(place for place, row in enumerate(rows) if isinstance(row, RevisionAgreed))
        self.world.kill_broker()
        self.world.restore_backup(agreed)
        self.world.start_broker()


def test_g9_a_rank_that_carried_out_what_a_backup_lacks_undoes_it_whoever_comes_back_first() -> None:
    for last in (0, 1):
        job = Job()
        job.busy.add(job.ranks[0])
        job.set(0.125)
        job.live(1.5)
        assert [rank.training.mailbox.holding for rank in job.ranks] == [False, True], "for the other's word"
        job.lose_the_agreement()
        job.away.add(job.ranks[last])
        job.live(2.0)
        job.away.clear()
        job.live(2.0)
        job.busy.clear()
        job.live(10.0)
        assert [rank.training.mailbox.holding for rank in job.ranks] == [False, False]
        assert [rank.effective["rate"] for rank in job.ranks] == [0.5, 0.5]
        assert job.world.broker is not None
        ledger = job.world.broker.state.attempts["run", "one"].ledgers[1]
        outcomes = list(ledger.outcomes.values())
        assert [outcome.outcome for outcome in outcomes] == ["aborted"] * 2
        assert NOT_IN_BACKUP in [outcome.error for outcome in outcomes]
