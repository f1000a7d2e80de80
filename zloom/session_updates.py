"""What a weavelet has subscribed, from when on that holds, and what it missed. Pure."""

from zloom.codec import echo_topic, own_topic, steer_topic
from zloom.effects import Connect, Subscribe, Unsubscribe
from zloom.gaps import Gaps
from zloom.messages import Echo, Published
from zloom.session_effects import Effect


class Updates:
    """The subscriptions of one weavelet.

    They travel to the broker like messages. The nonce's topic is subscribed last, so its echo tells that all
    have arrived; it stays subscribed, because its disappearance tells the broker that the process is gone.
    """

    def __init__(self, run: str, attempt: str) -> None:
        self.steer = steer_topic(run, attempt)
        """Topic of the attempt's revisions and beats."""
        self.echoed = False
        """Whether the broker has every subscription."""
        self._topics = [self.steer]
        self._endpoint = ""
        self._nonce = ""
        self._gaps = Gaps()

    def closed(self) -> None:
        """The socket was closed."""
        self._endpoint = ""

    def connected(self, endpoint: str, nonce: str) -> list[Effect]:
        """The broker welcomed this weavelet and told where to subscribe."""
        before, self._nonce, self.echoed = self._nonce, nonce, False
        if endpoint == self._endpoint:
            old: list[Effect] = [] if before == nonce else [Unsubscribe(echo_topic(before))]
            return [*old, Subscribe(echo_topic(nonce))]
        self._endpoint = endpoint
        topics = (*self._topics, echo_topic(nonce))
        return [Connect(endpoint), *(Subscribe(topic) for topic in topics)]

    def ask_again(self) -> list[Effect]:
        """Ask for the echo once more."""
        topic = echo_topic(self._nonce)
        return [Unsubscribe(topic), Subscribe(topic)]

    def add(self, topic: str) -> list[Effect]:
        """Subscribe to a user's own topics that begin with `topic`."""
        self._topics.append(own_topic(topic))
        return [Subscribe(own_topic(topic))] if self._endpoint else []

    def is_awaited(self, echo: Echo) -> bool:
        """Tell whether this is the echo that is waited for."""
        return echo.nonce == self._nonce and not self.echoed

    def see(self, topic: bytes, message: Published) -> int:
        """Take note of a publication; return how many before it did not come."""
        return self._gaps.see(topic, message)

    def restart(self) -> None:
        """Another life of the broker counts from the beginning."""
        self._gaps.restart()
