"""The nonce is subscribed last, and its echo confirms what was before it."""

import pytest

from zloom.client.effects import Confirmed
from zloom.client.subscriptions import ECHO_TIMEOUT, Subscriptions
from zloom.effects import Connect, Subscribe, Unsubscribe

HERE = "tcp://gpu-1:5556"
ECHO = Subscribe(b"echo/n1/")


@pytest.fixture
def subscriptions() -> Subscriptions:
    subscriptions = Subscriptions()
    assert subscriptions.connected(HERE, "n1", 0.0) == []  # no socket without a topic
    return subscriptions


def test_the_first_topic_opens_the_socket_and_the_echo_comes_last(subscriptions: Subscriptions) -> None:
    assert subscriptions.add(b"watch/a/", HERE, 1.0) == [
        Connect(HERE),
        Subscribe(b"beat/"),
        Subscribe(b"watch/a/"),
        ECHO,
    ]
    assert subscriptions.echoed("n1", 1.1) == [Confirmed(frozenset({b"watch/a/"}))]
    assert subscriptions.next_timer() is None


def test_a_topic_during_an_echo_gets_an_echo_of_its_own(subscriptions: Subscriptions) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.add(b"watch/b/", HERE, 1.0) == [Subscribe(b"watch/b/")]
    again = [Confirmed(frozenset({b"watch/a/"})), Unsubscribe(b"echo/n1/"), ECHO]
    assert subscriptions.echoed("n1", 1.1) == again
    assert subscriptions.echoed("n1", 1.2) == [Confirmed(frozenset({b"watch/b/"}))]


def test_an_echo_that_does_not_come_is_asked_for_again(subscriptions: Subscriptions) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.next_timer() == 1.0 + ECHO_TIMEOUT
    assert subscriptions.on_timer(1.5) == []
    assert subscriptions.on_timer(1.0 + ECHO_TIMEOUT) == [Unsubscribe(b"echo/n1/"), ECHO]
    assert subscriptions.echoed("n1", 2.1) == [Confirmed(frozenset({b"watch/a/"}))]


@pytest.mark.parametrize("nonce", ["n0", ""])
def test_an_echo_of_another_nonce_confirms_nothing(subscriptions: Subscriptions, nonce: str) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.echoed(nonce, 1.1) == []


def test_before_the_welcome_topics_are_kept() -> None:
    subscriptions = Subscriptions()
    assert subscriptions.add(b"watch/a/", "", 0.0) == []
    effects = subscriptions.connected(HERE, "n1", 1.0)
    assert effects == [Connect(HERE), Subscribe(b"beat/"), Subscribe(b"watch/a/"), ECHO]


def test_a_new_welcome_at_the_same_place_confirms_again_on_the_same_socket(
    subscriptions: Subscriptions,
) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    subscriptions.echoed("n1", 1.1)
    assert subscriptions.connected(HERE, "n2", 5.0) == [Unsubscribe(b"echo/n1/"), Subscribe(b"echo/n2/")]


def test_a_broker_that_moved_gets_a_new_socket_with_every_subscription(subscriptions: Subscriptions) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.connected("tcp://gpu-1:7", "n2", 5.0) == [
        Connect("tcp://gpu-1:7"),
        Subscribe(b"beat/"),
        Subscribe(b"watch/a/"),
        Subscribe(b"watch/a/"),
        Subscribe(b"echo/n2/"),
    ]


def test_after_the_sockets_were_closed_all_is_subscribed_anew(subscriptions: Subscriptions) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    subscriptions.closed()
    assert not subscriptions.open
    effects = subscriptions.connected(HERE, "n2", 5.0)
    assert effects[0] == Connect(HERE)
    assert effects[-1] == Subscribe(b"echo/n2/")


def test_a_topic_lives_as_long_as_its_last_subscriber(subscriptions: Subscriptions) -> None:
    subscriptions.add(b"watch/a/", HERE, 1.0)
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.remove(b"watch/a/") == [Unsubscribe(b"watch/a/")]
    subscriptions.closed()
    assert Subscribe(b"watch/a/") in subscriptions.connected(HERE, "n2", 5.0)
    subscriptions.remove(b"watch/a/")
    subscriptions.closed()
    assert subscriptions.connected(HERE, "n3", 6.0) == []


def test_silence_is_counted_from_the_last_word(subscriptions: Subscriptions) -> None:
    assert subscriptions.silent_at(3.0) is None
    subscriptions.add(b"watch/a/", HERE, 1.0)
    assert subscriptions.silent_at(3.0) == 4.0
    subscriptions.heard(2.0)
    assert subscriptions.silent_at(3.0) == 5.0
