"""What the log tells at level info: who came and went, and what was changed. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator

from zloom.messages import Happened, Revised
from zloom.model import Revision
from zloom_broker.effects import Effect, Publish, Tell

BURST = 5
"""Lines of one kind and attempt that one batch of effects may have: of a burst of 100 changes, which share a
commit, nobody wants to read more, and the broker has no time to write more."""

WATCH = b"watch/"
"""Each revision is published on the topic of those who watch, and on that of the weavelets."""


def lines(effects: Iterable[Effect]) -> Iterator[str]:
    """Yield the lines that a batch of effects is worth."""
    told: Counter[tuple[str, str]] = Counter()
    for effect in effects:
        entry = _entry(effect)
        if entry is None:
            continue
        told[entry[:2]] += 1
        if told[entry[:2]] <= BURST:
            yield _printable("{}: {} {}".format(*entry).rstrip())
    for (attempt, kind), count in told.items():
        if count > BURST:
            yield f"{attempt}: {kind} and {count - BURST} more"


def _entry(effect: Effect) -> tuple[str, str, str] | None:
    """Return attempt, kind and text of what an effect has to tell."""
    match effect:
        case Tell():
            return f"{effect.run} ({effect.attempt})", effect.kind, effect.text
        case Publish(topic, Happened(event=event)) if topic.startswith(WATCH):
            return f"{event.run} ({event.attempt})", event.kind, event.text
        case Publish(topic, Revised() as revised) if topic.startswith(WATCH):
            return f"{revised.run} ({revised.attempt})", "revision", _what(revised.revision)
    return None


def _what(revision: Revision) -> str:
    match revision.kind:
        case "config":
            what = ", ".join(revision.changes)
        case "command":
            what = revision.command
        case "cancel":
            what = f"cancel {revision.cancels}"
    return f"{revision.revision} by {revision.by or 'nobody'}: {what}"


def _printable(text: str) -> str:
    # Names and reasons come from peers: none of them may forge a line, or steer the terminal.
    return "".join(each if each.isprintable() else " " for each in text)
