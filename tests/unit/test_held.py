"""What is held of one replica: in order, and bounded."""

from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import given

from zloom.messages import Status
from zloom.series import Series
from zloom_broker.held import MAX_POINTS, MAX_STATUSES, Held

kinds = st.sampled_from(["status", "declare", "goodbye", "hello"])


def status(points: int = 1) -> Status:
    numbers = list(range(points))
    return Status(seq=1, step=1, metrics={"loss": Series.of(numbers, [float(each) for each in numbers])})


class Line:
    """Numbers what is held, and remembers how many statuses were dropped."""

    def __init__(self) -> None:
        self.held = Held()
        self.dropped = 0
        self.done: list[int] = []

    def add(self, kind: str, number: int, points: int = 1) -> None:
        def action() -> None:
            self.done.append(number)

        if kind == "status":
            self.dropped += self.held.status(status(points), action)
        else:
            adders: dict[str, Callable[[Callable[[], None]], None]] = {
                "declare": self.held.declare,
                "goodbye": self.held.goodbye,
                "hello": self.held.hello,
            }
            adders[kind](action)

    def do(self) -> list[int]:
        for item in self.held.items:
            item.action()
        return self.done


def line(*kinds: str, points: int = 1) -> Line:
    line = Line()
    for number, kind in enumerate(kinds):
        line.add(kind, number, points)
    return line


def test_what_is_held_is_done_in_its_order() -> None:
    assert line("status", "declare", "status", "goodbye", "hello").do() == [0, 1, 2, 3, 4]


def test_the_newest_declaration_takes_the_place_of_the_one_before() -> None:
    assert line("declare", "status", "declare").do() == [2, 1]


def test_the_first_goodbye_and_the_newest_hello_count() -> None:
    assert line("goodbye", "goodbye", "hello", "status", "hello").do() == [0, 3, 4]
    assert line("hello", "goodbye").do() == [0, 1]


def test_a_status_with_many_points_is_not_held_together_with_others_like_it() -> None:
    assert line(*["status"] * 4, points=MAX_POINTS).do() == [2, 3]
    assert line(*["status"] * 4, points=2 * MAX_POINTS).do() == [3], "the newest in any case"


@given(st.lists(kinds, max_size=200))
def test_whatever_comes_what_is_held_is_bounded(comes: list[str]) -> None:
    held = line(*comes)
    assert len(held.held.items) <= MAX_STATUSES + 1 + 2 + 1
    assert comes.count("status") == held.dropped + sum(item.kind == "status" for item in held.held.items)
    statuses = [number for number, kind in enumerate(comes) if kind == "status"]
    done = held.do()
    assert [number for number in done if comes[number] == "status"] == statuses[-MAX_STATUSES:]
    if "goodbye" in comes and "hello" in comes:
        newest = max(number for number, kind in enumerate(comes) if kind == "hello")
        after = "goodbye" in comes[newest:]
        last = [comes[number] for number in done if comes[number] in ("goodbye", "hello")][-1]
        assert last == ("goodbye" if after else "hello"), "whoever came last came last"
