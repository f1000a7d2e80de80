"""What nobody watches is not made, and all that somebody watches is."""

import pytest

from tests.unit.broker_support import Bench, published
from zloom import messages as m
from zloom_broker import watchers
from zloom_broker.watchers import Watchers, concerns

RUN = b"watch/run/"


def watched(*topics: bytes) -> Watchers:
    found = Watchers()
    for topic in topics:
        found.take(topic, present=True)
    return found


@pytest.mark.parametrize("topic", [b"", b"w", b"watch/", b"watch/ru", RUN])
def test_a_subscription_holds_for_all_that_begins_so(topic: bytes) -> None:
    assert concerns(topic)
    assert watched(topic).watch(RUN)


@pytest.mark.parametrize("topic", [b"watch/other/", b"watch/run/one"])
def test_a_subscription_of_something_else_watches_nothing(topic: bytes) -> None:
    assert not watched(topic).watch(RUN)


def test_nobody_watches_after_the_last_one_has_left() -> None:
    some = watched(b"watch/", RUN)
    some.take(b"watch/", present=False)
    assert some.watch(RUN)
    some.take(RUN, present=False)
    assert not some.watch(RUN)
    some.take(RUN, present=True)
    some.clear()
    assert not some.watch(RUN)


def test_beyond_many_subscriptions_everything_counts_as_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "MAX_TOPICS", 2)
    some = watched(b"watch/a/", b"watch/b/")
    assert not some.watch(RUN)
    some.take(RUN, present=True)
    some.take(b"watch/a/", present=False)
    assert some.watch(RUN)
    some.take(b"watch/b/", present=False)
    assert some.watch(RUN), "those that were counted are gone, and not those that were not"


def test_what_nobody_watched_is_seen_as_missed() -> None:
    """One who lost his connection for a moment is not to think that nothing happened."""
    bench = Bench()
    bench.active()
    numbers = []
    for seq, present in enumerate([True, False, False, True]):
        bench.subscription(b"watch/", present=present)
        told = published(bench.receive(b"a", m.Status(seq=seq, step=seq)), RUN)
        numbers += [each.seq for each in told if isinstance(each, m.Reported)]
    assert numbers[1] == numbers[0] + 3
    assert len(numbers) == 2


def test_what_happens_is_told_though_nobody_watches() -> None:
    """The broker's own log has it too."""
    bench = Bench()
    bench.subscription(b"watch/", present=False)
    assert {type(each) for each in published(bench.join(), RUN)} == {m.Happened}
