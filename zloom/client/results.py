"""What an operator gets back, where a message of the protocol does not say it already."""

from dataclasses import dataclass

from zloom.model import Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a revision so far.

    Attributes:
        run: Name of the run.
        attempt: The attempt that was changed.
        revision: The number that the broker gave the change.
        outcomes: One for each targeted replica, by rank; `outcome` is None where there is no answer yet.
        settled: Each targeted replica has answered.
        durable: The change is on the broker's disk; False with `--durability buffered`.
        duplicate: The request had been accepted before; this is its one effect.
        at_step: The step that it waits for, where one was named or counted.
        checkpoint: What became of the checkpoint before it, where one was asked for.
        latency: Seconds from the request until all had answered, or to the end of the wait.
    """

    run: str
    attempt: str
    revision: int
    outcomes: list[Outcome]
    settled: bool
    durable: bool = True
    duplicate: bool = False
    at_step: int | None = None
    checkpoint: "Result | None" = None
    latency: float = 0.0

    @property
    def applied_everywhere(self) -> bool:
        """Whether every targeted replica has applied the revision."""
        return self.settled and all(each.outcome == "applied" for each in self.outcomes)

    @property
    def applied(self) -> list[Outcome]:
        """Outcomes of the replicas that have applied the revision."""
        return [each for each in self.outcomes if each.outcome == "applied"]

    @property
    def missing(self) -> list[Outcome]:
        """Entries of the replicas that have not answered."""
        return [each for each in self.outcomes if each.outcome is None]


@dataclass(frozen=True, slots=True)
class Silence:
    """The broker does not answer, or answers again.

    Attributes:
        seconds: For so long it has not, or had not, answered; 0 where nobody noticed that it was restarted.
        over: It answers again.
        restarted: It is another life of the broker: what was published meanwhile may have been missed.
    """

    seconds: float
    over: bool
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class OperatorCounters:
    """What an operator's connection did since it was opened.

    Attributes:
        requests_open: Requests that still want an answer, now.
        requests_resent: Requests sent once more because no answer had come.
        reconnects: Times that both sockets were made anew.
        late_answers: Answers that nobody waited for any more.
        bad_messages: Messages that could not be read or were of an unknown type.
        errors: Complaints of the broker about what this side sent.
        publish_dropped: Payloads of own topics that could not be sent.
    """

    requests_open: int
    requests_resent: int
    reconnects: int
    late_answers: int
    bad_messages: int
    errors: int
    publish_dropped: int
