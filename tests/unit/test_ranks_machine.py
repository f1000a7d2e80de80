# ruff: noqa: E501
"""The real cores of a broker and of several ranks against a random world: do all change at one step, or none?"""

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, invariant, precondition, rule

from tests.unit.pair_ends import Ends
from tests.unit.pair_trainer import Trainer
from tests.unit.ranks_trainer import Rank, is_about_rounds
from tests.unit.round_support import MemoryRegister
from zloom import messages as m
from zloom.agreement import CONCLUSION_TIMEOUT, DECISION_TIMEOUT
from zloom.model import Revision, Value
from zloom_broker.ledger import Ledger

SETTLING = 70.0
"""Seconds until all is said: the longest hold, and 6 until one that is absent is lost."""

CATCHING_UP = 20.0
"""Seconds in which all ranks come to where the furthest was."""

SLACK = 2.0
"""Seconds that a hold may be found to have lasted longer, because nobody looked."""

picks = st.integers(0, 59)
few = st.integers(0, 3)
values: dict[str, st.SearchStrategy[Any]] = {
    "rate": st.sampled_from([0.125, 0.25, 0.75]),
    "depth": st.sampled_from([2, 6, 8, 9]),
}
changes_of = st.fixed_dictionaries({}, optional=values).filter(bool)


class Ranks(Ends):
    """Moves the world."""

    trainers: list[Rank]  # type: ignore[assignment]
    everyone: list[Rank]  # type: ignore[assignment]

    @initialize(
        credit=st.sampled_from([12, 250]),
        size=st.sampled_from([2, 2, 3]),
        register=st.booleans(),
        coupled=st.booleans(),
        window=st.sampled_from([1, 1, 3]),
    )
    def begin(self, credit: int, size: int, register: bool, coupled: bool, window: int) -> None:
        self.size, self.coupled, self.window = size, coupled, window
        self.registers: list[MemoryRegister | None] = [None] * size
        if register:
            self.registers = [*MemoryRegister.shared_by(size)]
        self.same = True
        """All ranks of the beginning are there and were told the same by their own users."""
        self.build(credit)
        for rank in range(size):
            self.launch(rank)
        self.live(2.0)

    def launch(self, rank: int) -> None:
        trainer = Rank(self.world, f"t{len(self.everyone)}", rank, self.size, self.registers[rank])
        trainer.window = self.window
        # A newcomer goes on where the job stands.
        trainer.training.step = min((each.training.step for each in self.trainers), default=0)
        trainer.peers = lambda: self.trainers if self.coupled else []
        self.trainers.append(trainer)
        self.everyone.append(trainer)
        trainer.start()

    def some(self, pick: int) -> list[Rank]:
        return [each for place, each in enumerate(self.trainers) if (pick + 1) >> place & 1]

    # --- what happens ----------------------------------------------------------------------------

    @rule(
        data=st.data(),
        what=st.sampled_from(["control", "control", "update", "round", "repeat", "repeat", "part"]),
        pick=picks,
    )
    def fail_on_the_network(self, data: st.DataObject, what: str, pick: int) -> None:
        match what:
            case "control":
                self.cut_control(pick, data.draw(few), data.draw(few))
            case "update":
                self.lose_update(pick, data.draw(few))
            case "round":
                self.lose_round(pick)
            case "repeat":
                self.repeat_round(pick, data.draw(st.integers(1, 9)))
            case "part":
                self.part(pick)

    @rule(data=st.data(), what=st.sampled_from(["write", "confirm", "fail", "kill", "restart", "restart"]))
    def happen_to_the_broker(self, data: st.DataObject, what: str) -> None:
        match what:
            case "write":
                self.world.write(data.draw(few) + 1)
            case "confirm":
                self.world.confirm()
            case "fail":
                self.world.fail_commits()
            case "kill":
                self.kill_broker(data.draw(few))
            case "restart":
                self.kill_broker(data.draw(few))
                self.start_broker(data.draw(st.booleans()))

    @rule(
        data=st.data(),
        what=st.sampled_from(
            [
                "pace",
                "race",
                "race",
                "mute",
                "ready",
                "all ready",
                "handler",
                "kill",
                "replace",
                "pause",
                "depart",
            ]
        ),
        pick=picks,
    )
    def happen_to_ranks(self, data: st.DataObject, what: str, pick: int) -> None:
        match what:
            case "pace":
                self.change_pace(pick, data.draw(st.sampled_from([0.02, 0.3, 1.0, 4.0])))
            case "race":
                self.race(pick)
            case "mute":
                self.mute(pick, data.draw(st.booleans()))
            case "ready":
                self.make_ready(pick, data.draw(st.booleans()))
            case "all ready":
                self.make_all_ready(data.draw(st.booleans()))
            case "handler":
                self.handler_takes_long(pick)
            case "kill" if len(self.trainers) > 1 and len(self.everyone) < 5:
                self.kill_rank(pick, data.draw(st.booleans()), data.draw(st.booleans()))
            case "replace" if len(self.trainers) < self.size:
                self.replace_rank()
            case "pause":
                self.end_pause_by_hand(pick)
            case "depart":
                self.depart(pick)

    @rule(moves=st.integers(1, 14), pick=picks)
    def get_on(self, moves: int, pick: int) -> None:
        """The protocol goes some way and stands still, wherever that is."""
        for move in range(moves):
            self.world.write(1 + pick % 2)
            if (pick >> move & 1) == 0:
                self.world.confirm()
            self.world.advance(0.01)
            if deliveries := self.world.deliveries():
                deliveries[(pick * move) % len(deliveries)]()

    # --- time and the network ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.1, 1.1, 6.0]))
    def live(self, seconds: float) -> None:
        """All is well for a while."""
        self.calm()
        self.world.advance(seconds, self.calm)

    @rule(seconds=st.sampled_from([0.1, 1.1, 6.0]))
    def silence(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(pick=picks, count=few)
    def deliver(self, pick: int, count: int) -> None:
        for _ in range(count + 1):
            if moves := self.world.deliveries():
                moves[pick % len(moves)]()

    @rule()
    def deliver_all(self) -> None:
        self.world.flush()

    def cut_control(self, pick: int, up: int, down: int) -> None:
        self.world.peers[pick % len(self.world.peers)].line.cut_control(up, down)

    def lose_update(self, pick: int, place: int) -> None:
        for rank in self.some(pick):
            if rank.line.updates is not None and (down := rank.line.updates.down):
                down.rotate(-place)
                down.popleft()
                down.rotate(place)

    def lose_round(self, pick: int) -> None:
        """What the broker says of rounds does not arrive, as when there is no credit."""
        for rank in self.some(pick):
            down = rank.line.control.down
            kept = [frames for frames in down if not is_about_rounds(frames)]
            down.clear()
            down.extend(kept)

    def repeat_round(self, pick: int, age: int) -> None:
        """A message of this or an earlier round arrives once more, or only now."""
        for rank in self.some(pick):
            if len(rank.heard) >= age:
                rank.line.control.down.append(rank.heard[-age][1])

    def part(self, pick: int) -> None:
        """A rank is cut off until it is lost, and comes back."""
        rank = self.trainers[pick % len(self.trainers)]
        rank.line.cut_control(0, 0)
        rank.line.cut_updates(0)

        def stay_cut() -> None:
            self.world.notice_cuts()
            rank.line.control.up.clear()

        stay_cut()
        self.world.advance(1.5, stay_cut)

    # --- the broker -------------------------------------------------------------------------------

    def kill_broker(self, written: int) -> None:
        self.world.write(written)
        self.world.kill_broker()

    @precondition(lambda self: self.world.broker is None)
    @rule(from_image=st.booleans())
    def start_broker(self, from_image: bool) -> None:
        self.world.start_broker(from_image=from_image)

    def restart_broker(self, written: int, from_image: bool) -> None:
        self.kill_broker(written)
        self.start_broker(from_image)

    # --- the ranks --------------------------------------------------------------------------------

    @rule(pick=picks, count=few)
    def train(self, pick: int, count: int) -> None:
        """Some training threads get on while nothing else happens."""
        for _ in range(count + 1):
            for rank in self.some(pick):
                rank.train()

    def change_pace(self, pick: int, pace: float) -> None:
        for rank in self.some(pick):
            rank.pace = pace

    def race(self, pick: int) -> None:
        """A step begins in the middle of a promise."""
        for rank in self.some(pick):
            rank.races = True

    def mute(self, pick: int, mute: bool) -> None:
        """The loop is slow to hear of the training thread."""
        for rank in self.some(pick):
            rank.mute = mute

    def make_ready(self, pick: int, ready: bool) -> None:
        for rank in self.some(pick):
            rank.ready = ready

    def make_all_ready(self, ready: bool) -> None:
        for rank in self.trainers:
            rank.ready = ready

    def handler_takes_long(self, pick: int) -> None:
        for rank in self.some(pick):
            rank.meanwhile = self.world.flush

    def kill_rank(self, pick: int, arriving: bool, polite: bool) -> None:
        self.same = False
        rank = self.trainers.pop(pick % len(self.trainers))
        if polite:
            rank.leave()
        else:
            rank.die(arriving=arriving)

    def replace_rank(self) -> None:
        held = {trainer.rank for trainer in self.trainers}
        self.launch(next(rank for rank in range(self.size) if rank not in held))

    def end_pause_by_hand(self, pick: int) -> None:
        """As its limit does, by each rank's own clock."""
        for rank in self.some(pick):
            if rank.mailbox.pause.active:
                self.same = False
                rank.mailbox.pause.end()

    def depart(self, pick: int) -> None:
        """Some are told to end, and end the pause that they are in for all."""
        for rank in self.some(pick):
            self.same = self.same and not rank.mailbox.pause.active
            rank.depart()

    # --- the operator -----------------------------------------------------------------------------

    def ask(self, request: m.FromOperator) -> None:
        self.requests[request.id] = request
        self.operator.request(request)

    def fresh(self) -> str:
        return f"q{len(self.requests)}"

    @rule(changes=changes_of)
    def set_soon(self, changes: dict[str, Value]) -> None:
        self.set(changes, None, "")

    @rule(
        changes=changes_of,
        ahead=st.sampled_from([None, None, 1, 6, 40]),
        pending=st.sampled_from(["", "supersede", "queue"]),
    )
    def set(self, changes: dict[str, Value], ahead: int | None, pending: str) -> None:
        step = None if ahead is None else ahead + max(each.training.step for each in self.everyone)
        mode: Any = None if step is None else "at_step"
        more: Any = {pending: True} if pending and (step is not None or pending == "supersede") else {}
        self.ask(m.SetConfig(id=self.fresh(), run="run", changes=changes, mode=mode, at_step=step, **more))

    @rule(name=st.sampled_from(["mark", "pause", "resume", "stop"]))
    def command(self, name: str) -> None:
        token = self.fresh()
        arguments: dict[str, Value] = {"token": token} if name == "mark" else {}
        self.ask(m.SendCommand(id=token, run="run", command=name, arguments=arguments))

    @rule(limit=st.sampled_from([0.0, 1.0]))
    def pause_for(self, limit: float) -> None:
        """Each rank ends it by its own clock."""
        self.same = False
        arguments: dict[str, Value] = {"limit": limit}
        self.ask(m.SendCommand(id=self.fresh(), run="run", command="pause", arguments=arguments))

    def cancel(self, age: int) -> None:
        self.ask(m.Cancel(id=self.fresh(), run="run", revision=max(1, len(self.history) - age)))

    def roll_back(self, age: int) -> None:
        self.ask(m.Rollback(id=self.fresh(), run="run", to_revision=max(0, len(self.history) - age)))

    @rule(age=few, back=st.sampled_from([False, False, True]))
    def take_back(self, age: int, back: bool) -> None:
        (self.roll_back if back else self.cancel)(age)

    # --- the guarantees ---------------------------------------------------------------------------

    @invariant()
    def g9_no_promise_is_broken(self) -> None:
        for rank in self.everyone:
            assert not rank.broken, f"G9: {rank.broken[0]}"

    @invariant()
    def g9_all_who_keep_it_applied_it_at_one_step(self) -> None:
        for ledger in self.attempt.ledgers if self.attempt else ():
            if ledger.revision.mode == "consistent":
                steps = self.steps_of(ledger.revision)
                assert len(set(steps.values())) <= 1, f"G9: revision {ledger.revision.revision} at {steps}"

    def steps_of(self, revision: Revision) -> dict[str, int | None]:
        return {
            rank.name: rank.applied_at[revision.revision]
            for rank in self.everyone
            if revision.revision in rank.applied_at and revision.kind != "cancel"
        }

    @invariant()
    def g9_ranks_leave_a_safe_point_together(self) -> None:
        """Where one ends, none trains that step: it would wait for the other in its collective for ever."""
        for rank in self.trainers if len(self.everyone) == self.size else ():
            for step in rank.departures:
                alone = [o.name for o in self.trainers if o.begun >= step and step not in o.departures]
                assert not alone, f"G9: {rank.name} ended at {step}, and {alone} trained it"

    @invariant()
    def g9_nothing_holds_longer_than_its_limit(self) -> None:
        limit = DECISION_TIMEOUT + CONCLUSION_TIMEOUT + SLACK
        for rank in self.everyone:
            if rank.register is not None:
                assert rank.longest_hold <= limit, f"G9: {rank.name} held for {rank.longest_hold} s"

    @invariant()
    def g4_an_outcome_is_what_the_replica_decided(self) -> None:
        """What all ranks end together the broker may answer for them, but for what they applied."""
        for ledger in self.attempt.ledgers if self.attempt else ():
            if ledger.revision.kind == "cancel":
                continue
            for name, outcome in ledger.outcomes.items():
                if outcome.outcome == "applied":
                    assert "applied" in self.decided(name, ledger.revision), "G4: told as applied and was not"

    def g4_nobody_who_is_here_is_lost(self, joined: list[Trainer]) -> None:
        """One that was lost in a round has nothing to say about it afterwards."""

    # --- in the end -------------------------------------------------------------------------------

    def calm(self) -> None:
        self.world.notice_cuts()
        self.world.flush()
        for rank in self.trainers:
            rank.post()
        self.world.flush()

    def settle(self) -> None:
        """Everybody who lives gets all that is on its way, and time."""
        if self.world.broker is None:
            self.world.start_broker()
        self.ease()
        self.calm()
        self.world.advance(SETTLING, self.calm)
        if self.same:
            assert len({rank.mailbox.pause.active for rank in self.trainers}) == 1, (
                "G9: some are paused, some are not"
            )
        for rank in self.trainers:
            rank.mailbox.pause.end()
        self.ease()
        self.world.advance(SETTLING, self.calm)
        self.check_settled()
        self.g9_all_are_the_same()
        self.g9_all_train()

    def ease(self) -> None:
        furthest = max((rank.training.step for rank in self.trainers), default=0)
        for rank in self.trainers:
            rank.ready, rank.mute, rank.races = True, False, False
            # What was promised for a step comes in time on ranks that lag far behind, too.
            rank.pace, lag = 1.0, furthest - rank.training.step
            rank.hurry = CATCHING_UP / (CATCHING_UP + lag), furthest
            rank.meanwhile = lambda: None

    def g9_all_are_the_same(self) -> None:
        # A newcomer gets the config when all ranks are there.
        complete = len(self.trainers) == self.size
        those = [rank for rank in self.trainers if complete or not rank.mailbox.lacks_config]
        effective = {rank.name: rank.effective for rank in those}
        if not effective:
            return
        first = next(iter(effective.values()))
        assert all(each == first for each in effective.values()), f"G9: the ranks differ: {effective}"
        for ledger in self.attempt.ledgers if self.attempt else ():
            if ledger.revision.kind == "config":
                self.g9_all_or_none(ledger)

    def g9_all_or_none(self, ledger: Ledger) -> None:
        """Of those who were there from the beginning to the end."""
        kinds = {
            outcome.outcome
            for outcome in ledger.outcomes.values()
            if outcome.outcome not in ("lost", "not_reached")
        }
        assert "applied" not in kinds or kinds == {"applied"}, (
            f"G9: revision {ledger.revision.revision}: {kinds}"
        )

    def g9_all_train(self) -> None:
        before = [rank.training.step for rank in self.trainers]
        self.world.advance(5.0, self.calm)
        assert all(rank.training.step > step for rank, step in zip(self.trainers, before, strict=True)), (
            f"G9: {[(rank.name, rank.held, rank.mailbox.holding, rank.mailbox.pause.active) for rank in self.trainers]}"
        )

    @rule(really=st.sampled_from([False, False, True]))
    def rest(self, really: bool) -> None:
        """All comes to rest, and may go on."""
        if really:
            self.settle()

    @precondition(lambda self: self.registers[0] is not None)
    @rule(really=st.sampled_from([False, False, True]))
    def be_without_a_broker_for_ever(self, really: bool) -> None:
        """What the ranks share brings them to one end, each in its time."""
        if not really:
            return
        self.world.kill_broker()
        self.ease()
        for rank in self.trainers:
            rank.mailbox.pause.end()
        self.world.advance(SETTLING)
        for rank in self.trainers:
            rank.mailbox.pause.end()
        self.world.advance(SETTLING)
        self.g9_all_train()
        self.g9_all_who_keep_it_applied_it_at_one_step()

    def teardown(self) -> None:
        """Check what holds in the end, when all ranks are there."""
        if hasattr(self, "registers"):
            while len(self.trainers) < self.size:
                self.replace_rank()
            self.settle()


TestRanks = Ranks.TestCase
TestRanks.settings = settings(
    max_examples=settings().max_examples // 2,  # each takes a fifth of a second
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
