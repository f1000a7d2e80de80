"""What a weavelet's loop leaves for the training thread."""

from zloom.delivery import Delivery
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.metrics import MetricBuffer
from zloom.model import Outcome, Revision
from zloom.restoring import Restore
from zloom.training import Training


def test_g4_a_consistent_revision_that_is_pending_is_not_answered_by_a_snapshot() -> None:
    """After a backup was restored two ranks answered `applied` to one that no handler ever ran."""
    outcomes: list[tuple[int, Outcome]] = []
    registry = Registry(lambda what, error: None)
    registry.add_key("lr", lambda value: None, initial=0.1)
    mailbox = Mailbox(registry, lambda number, outcome: outcomes.append((number, outcome)))
    training = Training(registry, mailbox, MetricBuffer())
    delivery = Delivery(training, lambda number, outcome: None, together=True)
    pending = [Revision(2, "config", {"lr": 0.9}, mode="consistent", at_step=1_000_000)]
    delivery.restore(Restore(2, {"lr": 0.2}, pending, "second", frozenset(), rolled_back=True))
    mailbox.run(7, 0.0)
    assert registry.values == {"lr": 0.2}
    assert [(number, outcome.outcome) for number, outcome in outcomes] == [(1, "applied")]
