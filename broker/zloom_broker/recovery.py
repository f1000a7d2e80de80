"""From the journal to the state, and from the state to a new epoch."""

from zloom_broker.journal import Recovered
from zloom_broker.records import EpochStarted, decode_image, decode_record
from zloom_broker.state import State


def recover(recovered: Recovered) -> State:
    """Return the state that a journal holds.

    Raises:
        ImageError: Its snapshot is not what it says it is.
        msgspec.DecodeError: A row is no record that this version knows.
    """
    state = State()
    if recovered.snapshot is not None:
        state = State.restore(decode_image(recovered.snapshot), recovered.parts)
    for _, payload in recovered.rows:
        state.apply(decode_record(payload))
    return state


def next_epoch(state: State, random: str, at: float) -> EpochStarted:
    """Return the epoch of a life that begins on a state.

    The counter tells lives of one data directory apart; the random part tells two lives apart that began on
    copies of one directory.

    Args:
        state: What was recovered.
        random: 64 random bits in hexadecimal.
        at: Seconds since the Unix epoch.
    """
    counter = state.epoch.counter + 1 if state.epoch else 1
    return EpochStarted(counter=counter, epoch=f"{counter}-{random}", at=at)
