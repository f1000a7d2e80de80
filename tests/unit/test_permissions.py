"""Which role may send what, about which run: each message of the protocol, and each kind of topic."""

from typing import get_args

import pytest

from tests.unit.broker_support import replica
from zloom import messages as m
from zloom.errors import Refused
from zloom_broker.permissions import (
    NEEDS,
    OWNER,
    Access,
    check_request,
    check_runs,
    hello_problem,
    publish_problem,
    subscription_problem,
)

OBSERVER = Access("olga", "observer", ("a", "exp-*"))
OPERATOR = Access("oscar", "operator", ("a", "exp-*"))
WEAVELET = Access("node", "weavelet", ("a", "exp-*"))
READS = [kind for kind, role in NEEDS.items() if role == "observer"]
CHANGES = [kind for kind, role in NEEDS.items() if role == "operator"]


def request(kind: type[m.Request], run: str) -> m.Request:
    fields = {
        "changes": {},
        "to_revision": 0,
        "command": "stop",
        "revision": 1,
        "device": "gpu",
        "replica": "a",
        "run": run,
    }
    return kind(id="1", **{name: fields[name] for name in kind.__struct_fields__ if name in fields})


def test_each_request_of_the_protocol_has_a_role() -> None:
    assert set(NEEDS) == set(get_args(m.FromOperator))


@pytest.mark.parametrize("kind", NEEDS, ids=lambda kind: str(kind.__name__))
def test_the_owner_may_do_everything(kind: type[m.Request]) -> None:
    check_request(OWNER, request(kind, "b"))


@pytest.mark.parametrize("kind", READS, ids=lambda kind: kind.__name__)
def test_an_observer_reads(kind: type[m.Request]) -> None:
    check_request(OBSERVER, request(kind, "a"))
    check_request(OPERATOR, request(kind, "exp-7"))


@pytest.mark.parametrize("kind", CHANGES, ids=lambda kind: kind.__name__)
def test_only_an_operator_changes(kind: type[m.Request]) -> None:
    check_request(OPERATOR, request(kind, "a"))
    tag = kind.__struct_config__.tag
    with pytest.raises(Refused, match=rf"^olga \(observer of a, exp-\*\) may not send {tag}; .* operator"):
        check_request(OBSERVER, request(kind, "a"))


@pytest.mark.parametrize("kind", NEEDS, ids=lambda kind: kind.__name__)
def test_a_weavelet_asks_for_nothing(kind: type[m.Request]) -> None:
    with pytest.raises(Refused, match=r"node .* may not send"):
        check_request(WEAVELET, request(kind, "a"))


@pytest.mark.parametrize(
    "kind", [kind for kind in NEEDS if "run" in kind.__struct_fields__], ids=lambda kind: kind.__name__
)
def test_another_run_is_out_of_bounds(kind: type[m.Request]) -> None:
    with pytest.raises(Refused, match=r"oscar .* may not send \w+ for b; that needs") as refused:
        check_request(OPERATOR, request(kind, "b"))
    assert refused.value.code == "forbidden"


def test_what_concerns_several_runs_needs_all_of_them() -> None:
    check_runs(OPERATOR, {"a", "exp-1"}, "report 'gpu'")
    with pytest.raises(Refused, match="may not report 'gpu', which concerns other runs too"):
        check_runs(OPERATOR, {"a", "b"}, "report 'gpu'")


def hello(run: str = "") -> m.Hello:
    of = replica(run=run) if run else None
    return m.Hello(protocols=[1], role="weavelet" if run else "operator", replica=of)


@pytest.mark.parametrize(
    ("access", "run", "welcome"),
    [
        (OWNER, "", True),
        (OWNER, "b", True),
        (OBSERVER, "", True),
        (OPERATOR, "", True),
        (WEAVELET, "", False),
        (WEAVELET, "a", True),
        (WEAVELET, "exp-1", True),
        (WEAVELET, "b", False),
        (OBSERVER, "a", False),
        (OPERATOR, "a", False),
    ],
)
def test_the_role_decides_who_may_be_what(access: Access, run: str, welcome: bool) -> None:
    problem = hello_problem(access, hello(run))
    assert (problem is None) is welcome
    assert problem is None or problem.code == "forbidden"


@pytest.mark.parametrize(
    ("access", "topic", "allowed"),
    [
        (OWNER, "anything", True),
        (OBSERVER, "a/loss", False),
        (OPERATOR, "a/loss", True),
        (WEAVELET, "exp-1/loss", True),
        (OPERATOR, "b/loss", False),
        (OPERATOR, "net/bandwidth", False),
        (OPERATOR, "a", False),
        (Access("o", "operator"), "net/bandwidth", True),
    ],
)
def test_own_topics_belong_to_runs(access: Access, topic: str, allowed: bool) -> None:
    assert (publish_problem(access, topic) is None) is allowed


@pytest.mark.parametrize("access", [OBSERVER, OPERATOR, WEAVELET])
@pytest.mark.parametrize("topic", [b"", b"w", b"watch", b"echo", b"echo/", b"steer", b"own", b"x", b"\xff"])
def test_a_prefix_of_several_families_is_refused(access: Access, topic: bytes) -> None:
    problem = subscription_problem(access, topic)
    assert problem is not None
    assert access.user in problem.text
    assert problem.topic == topic.decode(errors="replace")


@pytest.mark.parametrize("family", ["watch/", "steer/", "own/"])
@pytest.mark.parametrize(
    ("rest", "allowed"),
    [
        ("a/", True),
        ("a/one/", True),
        ("exp-7/", True),
        ("exp-", True),
        ("exp-7", True),
        ("a", False),
        ("ab/", False),
        ("ex", False),
        ("b/", False),
        ("", False),
        ("/a/", False),
        ("\x00", False),
    ],
)
def test_a_subscription_must_stay_within_the_runs(family: str, rest: str, allowed: bool) -> None:
    topic = (family + rest).encode()
    assert (subscription_problem(OBSERVER, topic) is None) is allowed
    of_weavelet = allowed and family != "watch/"
    assert (subscription_problem(WEAVELET, topic) is None) is of_weavelet


@pytest.mark.parametrize("access", [OWNER, OBSERVER, OPERATOR, WEAVELET])
@pytest.mark.parametrize("topic", [b"beat/", b"echo/0123456789abcdef/"])
def test_everybody_may_hear_the_beat_and_his_own_echo(access: Access, topic: bytes) -> None:
    assert subscription_problem(access, topic) is None


def test_who_may_see_all_runs_may_subscribe_to_all() -> None:
    everything = Access("o", "observer")
    for topic in (b"watch/", b"watch/b/", b"steer/", b"own/\xff"):
        assert subscription_problem(everything, topic) is None
    assert subscription_problem(everything, b"echo/") is not None
