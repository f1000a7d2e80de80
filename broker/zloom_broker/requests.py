"""One effect for each request id, however often the request comes (guarantee G5)."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

from zloom.codec import encode
from zloom.errors import Refused
from zloom.messages import Done, Refusal, Request
from zloom.model import MAX_REQUEST_ID
from zloom_broker.followers import Followers
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import AnyRecord, AttemptForgotten, DeviceFailed
from zloom_broker.state import RequestKey


class _InFlight:
    """A request whose effect is being written, and who wants to know."""

    def __init__(self, digest: bytes, peer: Peer) -> None:
        self.digest = digest
        self.waiting = [peer]


class Requests:
    """Tells requests that came before from new ones, and answers those who sent one again."""

    def __init__(self, hub: Hub, followers: Followers) -> None:
        self._hub = hub
        self._followers = followers
        self._in_flight: dict[RequestKey, _InFlight] = {}

    def seen_before(self, peer: Peer, request: Request, now: float) -> bool:
        """Whether the request has, or is about to have, its effect; its sender is told of that effect.

        Raises:
            Refused: Another request had this id, or it cannot be one.
        """
        if not 0 < len(request.id) <= MAX_REQUEST_ID:
            raise Refused(
                "bad_name", f"a request id has 1 to {MAX_REQUEST_ID} characters, this has {len(request.id)}"
            )
        key = peer.user, request.id
        known = self._known_digest(key)
        if known is None:
            return False
        if known != digest_of(request):
            text = f"request id {request.id!r} was used before with another body; use a fresh one"
            raise Refused("request_id_reused", text)
        self._hub.counters["requests_repeated"] += 1
        in_flight = self._in_flight.get(key)
        if in_flight is None:
            self._answer_again(peer, key, now)
        elif peer not in in_flight.waiting:
            in_flight.waiting.append(peer)
        return True

    def commit(
        self,
        peer: Peer,
        request: Request,
        digest: bytes,
        records: Sequence[AnyRecord],
        then: Callable[[list[Peer]], None],
        failed: Callable[[], None] = lambda: None,
        *,
        durable: bool = True,
    ) -> None:
        """Write the effect of a request that was not seen before.

        Args:
            peer: Who sent it.
            request: What he sent.
            digest: Of that, as the records have it.
            records: All or none of them.
            then: Called with those who wait for the answer, once it is on disk.
            failed: Called when it could not be written; those who wait are refused then.
        """
        key = peer.user, request.id

        def written() -> None:
            then(self._in_flight.pop(key).waiting)

        def not_written(reason: str) -> None:
            failed()
            text = f"the journal could not be written ({reason}); nothing was changed"
            for waiting in self._in_flight.pop(key).waiting:
                self._hub.send(waiting, Refusal(id=request.id, code="journal_failed", text=text))

        self._hub.commit(*records, then=written, failed=not_written, durable=durable)
        self._in_flight[key] = _InFlight(digest, peer)  # not before: what raises leaves nothing behind

    def _known_digest(self, key: RequestKey) -> bytes | None:
        state = self._hub.state
        if key in self._in_flight:
            return self._in_flight[key].digest
        if key in state.errands:
            return state.errands[key].request_digest
        if (made := state.made_by(key)) is not None:
            attempt, revision = made
            return attempt.ledgers[revision].request_digest
        return None

    def _answer_again(self, peer: Peer, key: RequestKey, now: float) -> None:
        errand = self._hub.state.errands.get(key)
        if errand is not None:
            self._hub.send(peer, done(errand))
            return
        if (made := self._hub.state.made_by(key)) is not None:
            attempt, number = made
            self._followers.follow(peer, key[1], attempt, attempt.ledgers[number], now, duplicate=True)


def done(errand: AttemptForgotten | DeviceFailed) -> Done:
    """Return the answer to the request of an errand, the same when it is asked for again."""
    attempt = errand.attempt if isinstance(errand, AttemptForgotten) else ""
    return Done(id=errand.request_id, replicas=errand.replicas, attempt=attempt)


def digest_of(request: Request) -> bytes:
    """Return a digest of the request's body: another body under the same id is refused."""
    return blake2b(encode(request), digest_size=16).digest()


def own_id(kind: str, *parts: str) -> str:
    """Return an id for a request of the broker's own, the same for the same thing.

    Names are too long to stand in one.
    """
    return f"{kind}:{blake2b(chr(0).join(parts).encode(), digest_size=16).hexdigest()}"
