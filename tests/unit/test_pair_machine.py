# ruff: noqa: E501
"""The real cores against a random world: lost, repeated and late messages, deaths, restarts, a restored backup."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, precondition, rule

from tests.unit.pair_ends import Ends
from tests.unit.pair_guarantees import THEFT
from tests.unit.pair_trainer import Trainer
from zloom import messages as m
from zloom.model import Value

MAX_RANKS = 2
"""What several ranks do at one step is for `test_ranks_machine.py`: here each applies at its own."""

MAX_BACKUPS = 1
"""Restored backups in one world."""

picks = st.integers(0, 59)
few = st.integers(0, 3)
values: dict[str, st.SearchStrategy[Any]] = {
    "rate": st.sampled_from([0.125, 0.25, 0.75]),
    "depth": st.sampled_from([2, 6, 8, 9]),
}
refused = st.sampled_from(
    [{"rate": 2.0}, {"rate": 0.25, "depth": 2.5}, {"tint": -1}, {"depth": True}, {"bogus": 1}]
)
changes_of = st.fixed_dictionaries({}, optional=values).filter(bool)


class Pair(Ends):
    """Moves the world."""

    @initialize(credit=st.sampled_from([12, 250]), joined=st.booleans(), ranks=st.integers(1, MAX_RANKS))
    def begin(self, credit: int, joined: bool, ranks: int) -> None:
        self.build(credit)
        self.ranks = ranks
        self.launch()
        if joined:
            self.launch()
            self.live(0.1)

    # --- the network ------------------------------------------------------------------------------

    @rule(pick=picks, count=few)
    def deliver(self, pick: int, count: int) -> None:
        for _ in range(count + 1):
            if moves := self.world.deliveries():
                moves[pick % len(moves)]()

    @rule()
    def deliver_all(self) -> None:
        self.world.flush()

    @rule(pick=picks, place=few)
    def lose_update(self, pick: int, place: int) -> None:
        if updates := self.updates_of(pick):
            updates.rotate(-place)
            updates.popleft()
            updates.rotate(place)

    @rule(pick=picks)
    def repeat_update(self, pick: int) -> None:
        if updates := self.updates_of(pick):
            updates.append(updates[0])

    def updates_of(self, pick: int) -> Any:
        peer = self.world.peers[pick % len(self.world.peers)]
        return peer.line.updates.down if peer.line.updates is not None else None

    @rule(pick=picks, up=few, down=few)
    def cut_control(self, pick: int, up: int, down: int) -> None:
        self.world.peers[pick % len(self.world.peers)].line.cut_control(up, down)

    @rule(pick=picks, down=few)
    def cut_updates(self, pick: int, down: int) -> None:
        self.world.peers[pick % len(self.world.peers)].line.cut_updates(down)

    @rule()
    def notice_cuts(self) -> None:
        self.world.notice_cuts()

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.1]))
    def live(self, seconds: float) -> None:
        """All is well for a while."""
        self.calm()
        self.world.advance(seconds, self.calm)

    # --- time -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.5]))
    def silence(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.5]))
    def pass_time(self, seconds: float) -> None:
        self.world.flush()
        self.world.advance(seconds, self.world.flush)

    # --- the broker -------------------------------------------------------------------------------

    @rule(count=few)
    def write(self, count: int) -> None:
        self.world.write(count + 1)

    @rule()
    def confirm(self) -> None:
        self.world.confirm()

    @precondition(lambda self: self.world.disk.waiting)
    @rule()
    def fail_commits(self) -> None:
        self.world.fail_commits()

    @rule(written=few)
    def kill_broker(self, written: int) -> None:
        self.world.write(written)
        self.world.kill_broker()

    @precondition(lambda self: self.world.broker is None)
    @rule(from_image=st.booleans())
    def start_broker(self, from_image: bool) -> None:
        self.world.start_broker(from_image=from_image)

    @rule(written=few, from_image=st.booleans())
    def restart_broker(self, written: int, from_image: bool) -> None:
        self.kill_broker(written)
        self.start_broker(from_image)

    @precondition(lambda self: self.backups < MAX_BACKUPS)
    @rule(lost=st.integers(1, 12))
    def restore_backup(self, lost: int) -> None:
        self.kill_broker(0)
        self.world.restore_backup(max(1, len(self.world.disk.rows) - lost))
        self.backups += 1
        self.ahead |= {trainer.name: trainer.chain for trainer in self.trainers}
        self.accepted = {r.request_id: r for r in self.history}
        self.finals.clear()
        self.start_broker(False)

    # --- the trainers -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.trainers) < self.ranks + 1 and len(self.everyone) < 6)
    @rule()
    def launch(self) -> None:
        """Start a process for the rank that has been empty for longest, or one that must wait for its turn."""
        held = [trainer.rank for trainer in self.trainers]
        rank = min(range(self.ranks), key=held.count)
        trainer = Trainer(self.world, f"t{len(self.everyone)}", rank, self.ranks)
        self.trainers.append(trainer)
        self.everyone.append(trainer)
        trainer.start()

    @precondition(lambda self: self.trainers)
    @rule(pick=picks, arriving=st.booleans())
    def kill_trainer(self, pick: int, arriving: bool) -> None:
        self.trainers.pop(pick % len(self.trainers)).die(arriving=arriving)

    @precondition(lambda self: self.trainers)
    @rule(pick=picks)
    def close_politely(self, pick: int) -> None:
        self.trainers.pop(pick % len(self.trainers)).leave()

    @rule(pick=picks, posted=st.booleans())
    def safe_point(self, pick: int, posted: bool) -> None:
        for trainer in self.some_trainers(pick):
            trainer.safe_point()
            if posted:
                trainer.post()

    @rule(pick=picks)
    def handler_takes_long(self, pick: int) -> None:
        for trainer in self.some_trainers(pick):
            trainer.meanwhile = self.world.flush

    @rule(pick=picks, ready=st.booleans())
    def make_ready(self, pick: int, ready: bool) -> None:
        for trainer in self.some_trainers(pick):
            trainer.ready = ready

    @rule(pick=picks)
    def declare_again(self, pick: int) -> None:
        for trainer in self.some_trainers(pick):
            trainer.declare()

    def some_trainers(self, pick: int) -> list[Trainer]:
        return [each for place, each in enumerate(self.trainers) if (pick + 1) >> place & 1]

    # --- the operators ----------------------------------------------------------------------------

    def ask(self, request: m.FromOperator) -> None:
        self.requests[request.id] = request
        self.operator.request(request)

    @rule(count=st.integers(2, 9))
    def flood(self, count: int) -> None:
        """Many updates, each of which is on disk and published when the next is asked for."""
        for number in range(count):
            self.set({"rate": (number + 1) / 16}, None)
            self.world.write(9)
            self.world.confirm()
            for control in list(self.world.network.uplinks()):
                if control is self.operator.line.control:
                    self.world.receive(control)

    def fresh(self) -> str:
        return f"q{len(self.requests)}"

    @rule(changes=changes_of, step=st.none() | st.integers(1, 9))
    def set(self, changes: dict[str, Value], step: int | None) -> None:
        step = step if self.ranks == 1 else None  # on several ranks that is a matter of rounds
        mode: Any = "next" if step is None else "at_step"
        self.ask(m.SetConfig(id=self.fresh(), run="run", changes=changes, mode=mode, at_step=step))

    @rule(tint=st.integers(1, 3))
    def set_immediately(self, tint: int) -> None:
        self.ask(m.SetConfig(id=self.fresh(), run="run", changes={"tint": tint}))

    @rule(changes=refused)
    def set_badly(self, changes: dict[str, Value]) -> None:
        self.ask(m.SetConfig(id=self.fresh(), run="run", changes=changes, mode="next"))

    @rule()
    def send_command(self) -> None:
        token = self.fresh()
        arguments: dict[str, Value] = {"token": token}
        self.ask(m.SendCommand(id=token, run="run", command="mark", arguments=arguments, mode="next"))

    @rule(age=few)
    def cancel(self, age: int) -> None:
        self.ask(m.Cancel(id=self.fresh(), run="run", revision=max(1, len(self.history) - age)))

    @rule(age=few)
    def roll_back(self, age: int) -> None:
        target = max(0, len(self.history) - age)
        self.ask(m.Rollback(id=self.fresh(), run="run", to_revision=target, mode="next"))

    @precondition(lambda self: self.requests)
    @rule(pick=picks)
    def repeat_request(self, pick: int) -> None:
        self.parrot.say(list(self.requests.values())[pick % len(self.requests)])

    @precondition(lambda self: self.accepted)
    @rule(pick=picks)
    def reuse_request_id(self, pick: int) -> None:
        name = list(self.accepted)[pick % len(self.accepted)]
        self.thief.say(m.SetConfig(id=name, run="run", changes=THEFT, mode="next"))

    # --- in the end -------------------------------------------------------------------------------

    @rule()
    def rest(self) -> None:
        """All comes to rest, and may go on."""
        self.settle()

    def teardown(self) -> None:
        """Check what holds in the end."""
        if hasattr(self, "world"):
            self.settle()


TestPair = Pair.TestCase
TestPair.settings = settings(
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow],
)
