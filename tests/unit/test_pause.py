"""Pause and resume: what holds the training, and for how many steps it goes on."""

from zloom.handlers import Applied, Registry, Rejected
from zloom.model import Value
from zloom.pause import PAUSE_LIMIT, Pause


class Held:
    """A pause with its commands, as a training reaches its safe points."""

    def __init__(self) -> None:
        self.raised: list[str] = []
        self.registry = Registry(lambda what, error: self.raised.append(f"{what}: {error}"))
        self.pause = Pause(self.registry)

    def run(self, command: str, **arguments: Value) -> str:
        result = self.registry.run(command, arguments)
        assert isinstance(result, Applied), result
        return result.detail

    def trained(self, first: int, last: int, now: float = 0.0) -> list[int]:
        """Begin steps from `first` on until the pause holds; return those that are trained."""
        steps: list[int] = []
        for step in range(first, last + 1):
            self.pause.reach(step, now)
            if self.pause.active:
                return steps
            steps.append(step)
        return steps


def test_a_bounded_resume_trains_so_many_steps_and_pauses_again() -> None:
    held = Held()
    held.pause.reach(7, 0.0)
    held.run("pause")
    held.run("resume", steps=5)
    assert held.trained(7, 100) == [7, 8, 9, 10, 11]
    assert held.pause.active
    assert not held.pause.coming
    held.run("resume", steps=1)
    assert held.trained(12, 100) == [12]


def test_the_second_pause_has_the_limit_of_the_first() -> None:
    held = Held()
    held.run("pause", limit=60)
    held.run("resume", steps=2)
    held.trained(0, 9, now=500.0)
    assert held.pause.until == 560.0


def test_a_pause_in_a_pause_says_so_and_that_the_limit_is_another() -> None:
    held = Held()
    assert held.run("pause") == ""
    assert held.run("pause", limit=90) == "was paused already; now for 90 s at most"
    assert held.run("pause", limit=None) == "was paused already; now without a limit"
    held.run("resume")
    assert held.run("pause") == ""


def test_what_is_left_of_a_pause_is_known_while_it_holds_and_has_a_limit() -> None:
    held = Held()
    assert held.pause.left(0.0) is None
    held.pause.reach(1, 100.0)
    held.run("pause", limit=60)
    assert [held.pause.left(now) for now in (100.0, 130.5, 160.0, 161.0)] == [60.0, 29.5, 0.0, 0.0]
    for forever in (None, 1e300):
        held.run("pause", limit=forever)
        assert held.pause.left(130.0) is None
    held.run("pause", limit=60)
    held.run("resume", steps=2)
    assert held.pause.left(130.0) is None


def test_a_training_that_is_not_paused_pauses_after_the_steps_too() -> None:
    held = Held()
    held.pause.reach(3, 0.0)
    held.run("resume", steps=2)
    assert held.trained(3, 9, now=1.0) == [3, 4]
    assert held.pause.until == 1.0 + PAUSE_LIMIT


def test_a_resume_without_a_pause_says_so() -> None:
    held = Held()
    held.pause.reach(3, 0.0)
    assert held.run("resume") == "was not paused"
    held.run("pause", limit=60)
    assert held.run("resume") == ""
    assert held.run("resume") == "was not paused"
    held.run("pause", limit=60)
    held.pause.reach(3, 60.0)
    assert held.run("resume") == "was not paused"
    held.run("resume", steps=4)
    assert held.run("resume") == "was not paused; no longer pauses from step 7 on"


def test_a_bounded_resume_says_from_which_step_on_it_pauses_and_for_how_long() -> None:
    held = Held()
    held.pause.begin_with(90.0)
    held.pause.reach(1, 0.0)
    assert held.run("resume", steps=5) == "pauses again from step 6 on, for 90 s at most"
    assert held.trained(1, 9) == [1, 2, 3, 4, 5]
    held.run("pause", limit=None)
    assert held.run("resume", steps=1) == "pauses again from step 7 on, without a limit"
    held.pause.end()
    assert held.run("resume", steps=1) == "was not paused; pauses from step 7 on, without a limit"
    assert Held().run("resume", steps=2) == "was not paused; pauses from step 2 on, for 30 minutes at most"


def test_the_second_pause_waits_for_a_place_where_it_is_safe() -> None:
    held = Held()
    held.run("resume", steps=2)
    held.pause.ready = lambda: False
    assert held.trained(0, 4) == [0, 1, 2, 3, 4]
    held.pause.ready = lambda: True
    assert held.trained(5, 9) == []


def test_g8_a_second_pause_comes_also_where_its_readiness_cannot_be_asked() -> None:
    """Nobody waits for an answer then, and the other ranks pause at this step."""
    held = Held()
    held.run("resume", steps=2)

    def broken() -> bool:
        raise LookupError("gone")

    held.pause.ready = broken
    assert held.trained(0, 4) == [0, 1]
    assert held.raised == ["`pause_ready`: gone"]


def test_resume_pause_and_end_make_an_end_of_counting() -> None:
    for command in ("resume", "pause"):
        held = Held()
        held.run("resume", steps=2)
        held.run(command)
        assert not held.pause.coming
    held.run("resume", steps=2)
    held.pause.end()
    assert held.trained(0, 50) == list(range(51))


def test_a_resume_for_no_steps_is_rejected() -> None:
    held = Held()
    held.run("pause")
    result = held.registry.run("resume", {"steps": 0})
    assert isinstance(result, Rejected)
    assert "steps" in result.error
    assert held.pause.active
