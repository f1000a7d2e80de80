"""Subscriptions are admitted one by one, by whose they are, and nobody has more than his share."""

from tests.unit.broker_support import Bench, published, sent
from zloom import messages as m
from zloom_broker.effects import Admit, Expel
from zloom_broker.permissions import Access
from zloom_broker.subscriptions import MAX_BYTES

OF_A = Access("olga", "observer", ("a",))
OF_B = Access("bert", "observer", ("b",))
OF_ALL = Access("ann", "observer")
ECHO = b"echo/0123456789abcdef/"


def secured() -> Bench:
    return Bench(secured=True)


def test_one_within_his_runs_is_admitted_and_another_is_not() -> None:
    bench = secured()
    assert bench.subscription(b"watch/a/", present=True, access=OF_A) == [Admit(b"watch/a/")]
    assert bench.subscription(b"watch/b/", present=True, access=OF_A) == []
    assert bench.subscription(b"watch/b/", present=True, access=OF_ALL) == [Admit(b"watch/b/")]
    assert bench.subscription(b"watch/b/", present=True, access=None) == []


def test_who_is_refused_is_told_on_control_and_nobody_else() -> None:
    bench = secured()
    for name, access in ((b"op", OF_A), (b"other", OF_ALL)):
        bench.receive(name, m.Hello(protocols=[1], role="operator"), access)
    effects = bench.subscription(b"watch/b/", present=True, access=OF_A)
    (error,) = sent(effects)
    assert isinstance(error, m.Error)
    assert (error.code, error.topic) == ("forbidden", "watch/b/")
    assert sent(effects, b"other") == []


def test_the_echo_follows_the_admission() -> None:
    effects = secured().subscription(ECHO, present=True, access=OF_A)
    assert effects[0] == Admit(ECHO)
    assert published(effects[1:], ECHO) == [m.Echo(nonce="0123456789abcdef")]


def test_without_keys_only_echoes_and_who_watches_are_minded() -> None:
    bench, topics = Bench(), (ECHO, b"watch/a/", b"", b"config/", b"beat/", b"watched/")
    assert [bench.core.minds(topic) for topic in topics] == [True, True, True, False, False, False]
    assert all(not bench.subscription(topic, present=True) for topic in topics if not bench.core.minds(topic))
    assert all(secured().core.minds(topic) for topic in topics)


def test_what_is_unsubscribed_is_had_no_more() -> None:
    bench = secured()
    bench.subscription(b"watch/a/", present=True, access=OF_A)
    gone = bench.subscription(b"watch/a/", present=False, access=OF_A)
    assert gone == [Admit(b"watch/a/", present=False)]


def test_a_flood_of_subscriptions_costs_the_key() -> None:
    bench = secured()
    topic = b"watch/b/" + b"x" * 4000  # not admitted, and libzmq keeps it all the same
    effects = []
    for number in range(MAX_BYTES // len(topic) + 1):
        effects += bench.subscription(topic + str(number).encode(), present=True, access=OF_A)
    assert effects == [Expel("olga", f"subscriptions of more than {MAX_BYTES} bytes")]


def test_connections_that_come_and_go_are_no_flood() -> None:
    bench = secured()
    topic = b"watch/a/" + b"x" * 4000
    for number in range(3 * MAX_BYTES // len(topic)):
        bench.subscription(topic, present=True, access=OF_A)
        bench.subscription(ECHO, present=True, access=OF_ALL)
        # Half of them break, and XPUB does not say whose they were.
        gone = bench.subscription(topic, present=False, access=None if number % 2 else OF_A)
        gone += bench.subscription(ECHO, present=False, access=None)
        assert not [effect for effect in gone if isinstance(effect, Expel)]


def test_who_is_refused_ends_nobody_elses_watch_by_leaving() -> None:
    bench = secured()
    bench.active(run="a")
    bench.subscription(b"watch/", present=False)  # the bench's own
    bench.subscription(b"watch/a/", present=True, access=OF_A)
    assert bench.subscription(b"watch/a/", present=True, access=OF_B) == []
    bench.subscription(b"watch/a/", present=False, access=None)  # his, as XPUB tells it too
    assert published(bench.receive(b"a", m.Status(seq=1, step=1)), b"watch/a/")
    bench.subscription(b"watch/a/", present=False, access=None)
    assert not published(bench.receive(b"a", m.Status(seq=2, step=2)), b"watch/a/")
