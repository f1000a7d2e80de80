"""What is said where the broker does not answer, and when it is back. Pure."""

from zloom.cli.report import attempt_option
from zloom.client.results import Result, Silence

HOST_ADVICE = "see that it is spelt right, or name another broker with --broker or ZLOOM_BROKER"


def unknown_host(endpoint: str, problem: str) -> str:
    """Return that the host of an endpoint has no address here, as the system says it."""
    return f"the host of {endpoint} is unknown here: {problem}"


def unheard(result: Result, endpoint: str, silence: float) -> str:
    """Return what is said of a change whose broker fell silent after it had accepted it.

    Args:
        result: Of the change, as far as it is known.
        endpoint: Of the broker.
        silence: Seconds for which it has not answered.
    """
    if result.durable:
        then = ", and may be applied without it; what is left of it comes when the broker is back"
    else:
        then = ", but was not yet on disk: it may be applied without the broker, or be lost"
    accepted = f"revision {result.revision} was accepted before{then}"
    return f"{fallen_silent(endpoint, silence)}; {accepted}"


def fallen_silent(endpoint: str, silence: float) -> str:
    """Return that a broker has not answered for so many seconds."""
    return f"the broker at {endpoint} has not answered for {silence:.1f} s"


def back(endpoint: str, silence: Silence) -> str:
    """Return that a broker answers again, or was restarted."""
    if not silence.seconds:
        return f"the broker at {endpoint} was restarted"
    restarted = ", restarted" if silence.restarted else ""
    return f"the broker at {endpoint} answers again after {silence.seconds:.1f} s{restarted}"


def told(silence: Silence, endpoint: str, run: str) -> str:
    """Return what a watcher of a run, or of all, is told when the broker falls silent or is back."""
    if not silence.over:
        return f"{fallen_silent(endpoint, silence.seconds)}; waiting for it"
    news = back(endpoint, silence)
    if not silence.restarted:
        return news
    history = f"`zloom history {run or 'RUN'}` tells the changes and what became of them"
    return f"{news}; what happened meanwhile may be missing here: {history}"


def told_later(run: str, attempt: str = "") -> str:
    """Return which command tells what became of a change; `attempt` as it was named, or empty."""
    return f"`zloom history {run}{attempt_option(attempt)}` tells what became of it, once the broker answers"
