"""A broker's core with the ranks of one job, for tests of consistent revisions."""

from tests.unit.broker_support import PAUSE, Bench, sent
from zloom import messages as m
from zloom.model import Command, Schema, Value
from zloom_broker.effects import Effect
from zloom_broker.records import EpochStarted, decode_image, encode
from zloom_broker.state import State

COMMANDS = [PAUSE, *(Command(name, Schema(["object"])) for name in ("resume", "stop", "checkpoint"))]

Said = m.Prepare | m.Decision | m.Conclusion


class Job(Bench):
    """A bench with `size` ranks that are active, and an operator."""

    def __init__(
        self, size: int = 2, *, store: bool = True, journal: list[bytes] | None = None, **settings: object
    ) -> None:
        super().__init__(journal, **settings)  # type: ignore[arg-type]
        self.size = size
        self.store = store
        self.operator()
        for rank in range(size):
            self.enter(rank)

    def enter(self, rank: int, name: str = "", *, revision: int = -1, chain: bytes = b"") -> list[Effect]:
        """Let a rank's replica join, and synchronise."""
        name = name or f"r{rank}"
        effects = self.join(name, rank=rank, world_size=self.size, commands=COMMANDS)
        return effects + self.sync(name, revision, chain)

    def change(self, request: str = "q1", **more: object) -> list[Effect]:
        """Ask for a learning rate of 0.5, or of something else."""
        changes: dict[str, Value] = {"learning_rate": 0.5}
        fields: dict[str, object] = {"changes": changes, **more}
        return self.receive(b"op", m.SetConfig(id=request, run="run", **fields))  # type: ignore[arg-type]

    def command(self, name: str, request: str = "q1") -> list[Effect]:
        """Ask for a command."""
        return self.receive(b"op", m.SendCommand(id=request, run="run", command=name))

    def cancel(self, revision: int, request: str = "c1") -> list[Effect]:
        """Ask to take a revision back."""
        return self.receive(b"op", m.Cancel(id=request, run="run", revision=revision))

    def promise(self, rank: int, prepare: m.Prepare, **more: object) -> list[Effect]:
        """Let a rank promise what it was asked, or answer something else."""
        fields: dict[str, object] = {
            "epoch": prepare.epoch,
            "revision": prepare.revision.revision,
            "round": prepare.round,
            "step": prepare.step,
            "store": self.store,
            **more,
        }
        return self.receive(f"r{rank}".encode(), m.Promise(**fields))  # type: ignore[arg-type]

    def agree(self, prepare: m.Prepare) -> list[Effect]:
        """Let all ranks promise."""
        return [effect for rank in range(self.size) for effect in self.promise(rank, prepare)]

    def carried_out(self, rank: int, prepare: m.Prepare, step: int = 0) -> list[Effect]:
        """Let a rank tell that it has carried the update out."""
        number = prepare.revision.revision
        step = step or prepare.step
        confirm = m.Confirm(epoch=prepare.epoch, revision=number, round=prepare.round, step=step)
        return self.receive(f"r{rank}".encode(), confirm)

    def lose(self, rank: int) -> list[Effect]:
        """Have a rank's connection end, and time pass until it is lost."""
        return [*self.unroutable(f"r{rank}".encode()), *self.advance(1.1)]

    def ends(self, revision: int = 1) -> list[str]:
        """Return the outcome of each target of a revision that is on disk, with its reason."""
        attempt = self.core.state.attempts["run", "one"]
        outcomes = attempt.outcomes(attempt.ledgers[revision])
        return [f"{each.outcome}: {each.error}".removesuffix(": ") for each in outcomes]


def told(effects: list[Effect], rank: int) -> list[Said]:
    """Return what a rank was told of rounds."""
    return [each for each in sent(effects, f"r{rank}".encode()) if isinstance(each, Said)]


def prepared(effects: list[Effect], rank: int = 0) -> m.Prepare:
    """Return the one prepare among the effects."""
    (prepare,) = [each for each in told(effects, rank) if isinstance(each, m.Prepare)]
    return prepare


def decision(prepare: m.Prepare, commit: bool, reason: str = "") -> m.Decision:
    """Return the decision of a round."""
    number = prepare.revision.revision
    return m.Decision(epoch=prepare.epoch, revision=number, round=prepare.round, commit=commit, reason=reason)


def conclusion(prepare: m.Prepare, keep: bool, reason: str = "") -> m.Conclusion:
    """Return the conclusion of a round."""
    number = prepare.revision.revision
    return m.Conclusion(epoch=prepare.epoch, revision=number, round=prepare.round, keep=keep, reason=reason)


def restarted(job: Job, *, from_image: bool = False, enter: bool = True) -> Job:
    """Return the next life on a job's journal."""
    job.journal.append(encode(EpochStarted(counter=2, epoch="epoch2", at=0.0)))
    job.core.state.apply(EpochStarted(counter=2, epoch="epoch2", at=0.0))
    state = (
        State.restore(decode_image(encode(job.core.state.image())), job.core.state.parts())
        if from_image
        else None
    )
    reborn = Job(0, journal=job.journal, state=state, epoch="epoch2")
    reborn.size = job.size
    for rank in range(job.size if enter else 0):
        attempt = job.core.state.attempts["run", "one"]
        reborn.enter(rank, revision=attempt.revision, chain=attempt.chain)
    return reborn
