"""Payloads on topics that only their users know: passed on, at most once."""

from zloom.codec import own_topic
from zloom.messages import Error, Own, Publish
from zloom.oldest import forget_oldest
from zloom_broker.hub import Hub, Peer
from zloom_broker.permissions import publish_problem

MAX_TOPICS = 1000
"""Topics of one connection of which the newest sequence number is kept."""

MAX_TOPIC = 1024
"""Characters of one, so that what is kept of them stays small."""


class OwnTopics:
    """Passes on what peers publish, and counts what did not arrive; not thread-safe."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def publish(self, peer: Peer, message: Publish) -> None:
        """Pass a payload on, or tell its sender why not."""
        problem = _too_long(message.topic) or publish_problem(peer.access, message.topic)
        if problem is not None:
            self._hub.send(peer, problem)
            return
        self._hub.count_gap("own_missed", peer.publish_seqs.pop(message.topic, None), message.seq)
        peer.publish_seqs[message.topic] = message.seq
        forget_oldest(peer.publish_seqs, MAX_TOPICS)
        sender = peer.replica or peer.user
        own = Own(topic=message.topic, payload=message.payload, sender=sender, sender_seq=message.seq)
        self._hub.publish(own_topic(message.topic), own)


def _too_long(topic: str) -> Error | None:
    if len(topic) <= MAX_TOPIC:
        return None
    text = f"the topic has {len(topic)} characters; at most {MAX_TOPIC} may be published on"
    return Error(code="bad_name", text=text)
