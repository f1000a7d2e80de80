"""A broker's core with a journal in memory, for tests: fed by hand, committed at once or when told."""

from collections import deque

from zloom import messages as m
from zloom.model import Command, Device, Key, Outcome, Replica, Schema, Value
from zloom_broker.core import Core
from zloom_broker.effects import Commit, Effect, Publish, Send
from zloom_broker.hub import CoreSettings
from zloom_broker.permissions import OWNER, Access
from zloom_broker.records import decode_record
from zloom_broker.state import State

LEARNING_RATE = Key("learning_rate", Schema(["number"], exclusive_minimum=0, maximum=1), 0.1)
BATCH_SIZE = Key("batch_size", Schema(["integer"], minimum=1), 32)
PAUSE = Command("pause", Schema(["object"], properties={"limit": Schema(["number", "null"])}))
GPU = Device("GPU-1", "A GPU", "gpu", 0)


def replica(name: str = "a", **changes: object) -> Replica:
    """Return a replica of run `run`, attempt `one`."""
    fields: dict[str, object] = {
        "run": "run",
        "attempt": "one",
        "keys": [LEARNING_RATE, BATCH_SIZE],
        "commands": [PAUSE],
        "devices": [GPU],
        "host": "host",
        "pid": 1,
    }
    return Replica(name, **(fields | changes))  # type: ignore[arg-type]


class Bench:
    """A core with its journal in memory. Commits are confirmed at once unless `hold` is set."""

    def __init__(
        self,
        journal: list[bytes] | None = None,
        state: State | None = None,
        *,
        epoch: str = "epoch",
        **settings: object,
    ) -> None:
        self.journal: list[bytes] = [] if journal is None else journal
        self.now = 0.0
        self.hold = False
        self.waiting: list[Commit] = []
        state = fold(self.journal) if state is None else state
        core_settings = CoreSettings(epoch=epoch, **settings)  # type: ignore[arg-type]
        self.core = Core(state, core_settings, len(self.journal), 0.0, 1000.0)
        self.core.subscription(b"watch/", self.now, present=True)  # so that all is told

    # --- events --------------------------------------------------------------------------------

    def receive(self, peer: bytes, message: m.ToBroker, access: Access = OWNER) -> list[Effect]:
        """Feed a message, end the turn, confirm its commits, and return all effects but commits."""
        return self._carry(self.core.receive(peer, message, self.now, access) + self.core.end_turn())

    def turn(self, *messages: tuple[str, m.ToBroker]) -> list[Effect]:
        """Feed messages of peers that come in one turn of the loop."""
        effects: list[Effect] = []
        for name, message in messages:
            effects += self.core.receive(name.encode(), message, self.now)
        return self._carry(effects + self.core.end_turn())

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass; timers run when they are due."""
        end = self.now + seconds
        effects: list[Effect] = []
        while (due := self.core.next_timer()) <= end:
            self.now = max(self.now, due)
            effects += self._carry(self.core.on_timer(self.now, 1000.0 + self.now, {}, {}))
        self.now = end
        return effects

    def subscription(self, topic: bytes, *, present: bool, access: Access | None = OWNER) -> list[Effect]:
        """Feed a subscription."""
        return self._carry(self.core.subscription(topic, self.now, present=present, access=access))

    def unroutable(self, peer: bytes) -> list[Effect]:
        """Tell that a peer's connection is closed."""
        return self._carry(self.core.unroutable(peer, self.now))

    def confirm(self, count: int | None = None) -> list[Effect]:
        """Confirm the commits that were held, or only the first of them."""
        if count is None:
            self.hold, count = False, len(self.waiting)
        confirmed, self.waiting = self.waiting[:count], self.waiting[count:]
        return self._commit(confirmed)

    def fail(self, reason: str = "disk full") -> list[Effect]:
        """Fail the commits that were held."""
        self.hold = False
        first, self.waiting = self.waiting[0], []
        return self._carry(self.core.commit_failed(first.seq, reason, self.now) + self.core.end_turn())

    # --- peers ---------------------------------------------------------------------------------

    def join(self, name: str = "a", *, inherit: bool = False, **changes: object) -> list[Effect]:
        """Let a weavelet say hello, on the connection of its name."""
        who = replica(name, **changes)
        hello = m.Hello(protocols=[1], role="weavelet", nonce=f"n-{name}", replica=who, inherit=inherit)
        return self.receive(name.encode(), hello)

    def sync(self, name: str = "a", revision: int = -1, chain: bytes = b"") -> list[Effect]:
        """Let a weavelet ask for what it lacks."""
        return self.receive(name.encode(), m.Sync(nonce=f"n-{name}", revision=revision, chain=chain))

    def active(self, name: str = "a", **changes: object) -> None:
        """Let a weavelet join and synchronise."""
        self.join(name, **changes)  # type: ignore[arg-type]
        self.sync(name)

    def operator(self, name: str = "op", user: str = "alice") -> None:
        """Let an operator say hello."""
        self.receive(name.encode(), m.Hello(protocols=[1], role="operator", user=user))

    def set(self, request_id: str = "q1", peer: bytes = b"op", **changes: Value) -> list[Effect]:
        """Ask for a config update of the run."""
        return self.receive(peer, m.SetConfig(id=request_id, run="run", changes=changes))

    def recorded(self, name: str = "a") -> list[int]:
        """Let beats pass until a replica is pinged; return whose outcomes that says are on disk."""
        pings: list[m.Ping] = []
        while not pings:
            told = sent(self.advance(1.0), name.encode())
            pings = [each for each in told if isinstance(each, m.Ping)]
        return pings[0].recorded

    def answer(
        self, revision: int, name: str = "a", outcome: str = "applied", **more: object
    ) -> list[Effect]:
        """Let a replica answer a revision."""
        said = Outcome(name, outcome=outcome, **({"step": 5} | more))  # type: ignore[arg-type]
        return self.receive(name.encode(), m.Outcomes(epoch="epoch", outcomes={revision: said}))

    # --- inside --------------------------------------------------------------------------------

    def _carry(self, effects: list[Effect]) -> list[Effect]:
        commits = [effect for effect in effects if isinstance(effect, Commit)]
        rest: list[Effect] = [effect for effect in effects if not isinstance(effect, Commit)]
        if self.hold:
            self.waiting += commits
            return rest
        return rest + self._commit(commits)

    def _commit(self, commits: list[Commit]) -> list[Effect]:
        effects: list[Effect] = []
        queue = deque(commits)
        while queue:
            commit = queue.popleft()
            assert commit.seq == len(self.journal) + 1
            self.journal += commit.payloads
            told = self.core.committed(len(self.journal), self.now)
            # What follows from one comes to the disk behind those that wait already.
            follows = self.waiting if self.hold else queue
            follows.extend(effect for effect in told if isinstance(effect, Commit))
            effects += [effect for effect in told if not isinstance(effect, Commit)]
        return effects + self._carry(self.core.end_turn()) if commits else effects


def fold(journal: list[bytes]) -> State:
    """Return the state that a journal tells of."""
    state = State()
    for payload in journal:
        state.apply(decode_record(payload))
    return state


def bench_of(*replicas: str) -> Bench:
    """Return a bench with these ranks in step, and an operator."""
    bench = Bench()
    for rank, name in enumerate(replicas):
        bench.active(name, rank=rank, world_size=len(replicas))
    bench.operator()
    return bench


def changed(*replicas: str) -> Bench:
    """Return a bench with these ranks in step, an operator, and one revision."""
    bench = bench_of(*replicas)
    changes: dict[str, float] = {"learning_rate": 0.5}
    bench.receive(b"op", m.SetConfig(id="q1", run="run", changes=dict(changes), mode="next"))
    return bench


def two_ranks() -> Bench:
    """Return a bench with two ranks in step, an operator, and one revision."""
    return changed("a", "b")


def pushes(effects: list[m.Message]) -> list[list[str | None]]:
    """Return the outcomes of each push."""
    return [[o.outcome for o in each.outcomes] for each in effects if isinstance(each, m.RevisionState)]


def sent(effects: list[Effect], peer: bytes = b"op") -> list[m.Message]:
    """Return the messages that went to a peer."""
    return [effect.message for effect in effects if isinstance(effect, Send) and effect.peer == peer]


def published(effects: list[Effect], topic: bytes) -> list[m.Message]:
    """Return the messages that were published on a topic."""
    return [effect.message for effect in effects if isinstance(effect, Publish) and effect.topic == topic]


def events(effects: list[Effect], run: str = "run") -> list[str]:
    """Return the kinds of the events that were published."""
    told = published(effects, f"watch/{run}/".encode())
    return [message.event.kind for message in told if isinstance(message, m.Happened)]
