# ruff: noqa: E501
"""The ranks of one job in a `World`: trainers whose training threads begin steps at their own pace."""

from collections.abc import Callable

from tests.unit.pair_network import Control
from tests.unit.pair_support import World
from tests.unit.pair_trainer import Trainer
from tests.unit.round_support import MemoryRegister
from zloom import codec
from zloom.mailbox import SNAPSHOT
from zloom.messages import Conclusion, Decision, Message, Prepare, Promise
from zloom.model import Outcome
from zloom.rounds import Round
from zloom.session_effects import Decided, Effect

HOLD_POLL = 0.25
"""Seconds between two looks of a training thread that waits, if nothing wakes it."""

ROUND_MESSAGES = (Prepare, Decision, Conclusion)


class Rank(Trainer):
    """A trainer that begins a step each `pace` seconds, unless its safe point holds it or `peers` lag behind."""

    def __init__(
        self, world: World, name: str, rank: int, world_size: int, register: MemoryRegister | None
    ) -> None:
        super().__init__(world, name, rank, world_size, together=True)
        self.register = register
        self.mailbox = self.training.mailbox
        self.mailbox.decide_in(register, None)
        self.registry.add_command("stop", lambda: None)
        self.pace = 1.0
        self.hurry: tuple[float, int] = 1.0, 0
        """Its pace up to a step, so that it comes to where the others are."""
        self.window = 1
        """Depth may change at each so manieth step."""
        self.mute = False
        """The loop does not hear of what the training thread did."""
        self.held = False
        self.held_since = 0.0
        self.longest_hold = 0.0
        self.peers: Callable[[], list[Rank]] = list
        """With whom the collective of each step waits."""
        self.races = False
        """The training thread begins a step while the loop promises."""
        self.promised: dict[int, Promise] = {}
        """The newest promise for each revision of which the broker's word is not known."""
        self.broken: list[str] = []
        """Promises that were not kept."""
        self.applied_at: dict[int, int | None] = {}
        """Step of each revision that was applied and kept here."""
        self.departures: dict[int, str] = {}
        """Why this rank was to end, by the step whose safe point it left with that."""
        self.heard: list[tuple[Control, list[bytes]]] = []
        """Messages about rounds, to be repeated."""
        self._train_at = world.now
        self._held_for: tuple[Round | None, int] = (None, 0)

    def is_ready(self) -> bool:
        """Whether depth may change at this safe point."""
        return self.ready and self.training.step % self.window == 0

    @property
    def begun(self) -> int:
        """The last step that it trains, or has trained."""
        return self.training.step - self.held

    def depart(self) -> None:
        """Be told by its user to end, as by SIGTERM."""
        self.mailbox.parting.depart("SIGTERM")
        self.mailbox.pause.end()

    def die(self, *, arriving: bool = False) -> None:
        """Be killed."""
        super().die(arriving=arriving)
        self.pace = float("inf")

    # --- the training thread --------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called."""
        session = self.session.next_timer()
        return self._train_at if session is None else min(session, self._train_at)

    def on_timer(self) -> None:
        """Do what is due on both threads."""
        session = self.session.next_timer()
        if session is not None and session <= self.world.now:
            super().on_timer()
        if self._train_at <= self.world.now:
            self.train()
            pace = self.hurry[0] if self.training.step < self.hurry[1] else self.pace
            self._train_at = self.world.now + (HOLD_POLL if self.held else pace)

    def train(self) -> None:
        """Go on with the training if nothing holds it."""
        if self.held:
            self._serve()
        elif all(peer.training.step >= self.training.step for peer in self.peers()):
            self.training.step += 1
            if self.mailbox.waiting:
                self._serve()
            else:
                self._begin()
        if not self.mute:
            self.post()

    def safe_point(self) -> None:
        """Do what time would."""
        self.train()

    def _serve(self) -> None:
        self._drained = self.chain
        self.training.serving = True
        try:
            self.mailbox.run(self.training.step, self.world.now)
        finally:
            self.training.serving = False
        self.held = self.mailbox.must_wait
        self._time_hold()
        if not self.held:
            if reason := self.mailbox.parting.reason:
                self.departures[self.training.step] = reason
            self._begin()

    def _begin(self) -> None:
        """The safe point is left: the step trains."""
        for number, promise in self.promised.items():
            if promise.step <= self.training.step and not self._knows(number, promise):
                self.broken.append(f"{self.name} began {self.training.step} and had promised {promise}")

    def _knows(self, number: int, promise: Promise) -> bool:
        name = f"{promise.epoch}/{promise.revision}/{promise.round}"
        decided = self.register is not None and name in self.register.decisions
        return decided or self.mailbox.is_settled(number)

    def _time_hold(self) -> None:
        holding = self.mailbox.holding and not self.mailbox.pause.active
        held_for = self.mailbox._agreement._held, len(self.decisions)
        if not holding or held_for != self._held_for:
            self._held_for, self.held_since = held_for, self.world.now
        self.longest_hold = max(self.longest_hold, self.world.now - self.held_since)

    def _note(self, number: int, outcome: Outcome, chain: bytes) -> None:
        super()._note(number, outcome, chain)
        if outcome.outcome == "applied" and outcome.detail != SNAPSHOT:
            self.applied_at[number] = outcome.step

    # --- the loop -------------------------------------------------------------------------------

    def receive_control(self, payload: bytes) -> None:
        """Take a message from control."""
        message = codec.from_broker.decode(payload)
        if isinstance(message, ROUND_MESSAGES):
            self.heard.append((self.line.control, codec.control_frames(message)))
        super().receive_control(payload)

    def _run(self, effects: list[Effect]) -> None:
        super()._run(effects)
        for effect in effects:
            if isinstance(effect, Decided):
                said = effect.decision
                mine = self.promised.get(said.revision)
                if mine is not None and (mine.epoch, mine.round) == (said.epoch, said.round):
                    del self.promised[said.revision]

    def _prepare(self, prepare: Prepare) -> None:
        promise = self.promises.prepare(prepare)
        known = self.promised.get(promise.revision)
        if promise.promised:
            self.promised[promise.revision] = promise
        elif (
            known is not None
            and (known.epoch, known.round) != (promise.epoch, promise.round)
            and not _is_older(promise, known)
        ):
            del self.promised[promise.revision]
        self._train_at = min(self._train_at, self.world.now + HOLD_POLL)
        self._run(self.session.insist(promise, self.world.now))

    def _read_step(self) -> int:
        if self.races and not self.training.serving:
            self.races = False
            self.train()
        return self.training.step


def _is_older(promise: Promise, known: Promise) -> bool:
    return promise.epoch == known.epoch and promise.round < known.round


def is_about_rounds(frames: list[bytes]) -> bool:
    """Whether the broker's message is one of a round."""
    message: Message = codec.from_broker.decode(codec.control_payload(frames))
    return isinstance(message, ROUND_MESSAGES)
