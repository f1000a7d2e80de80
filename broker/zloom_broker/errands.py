"""The requests that change something and make no revision: reporting a device, forgetting an attempt."""

from collections.abc import Callable

from zloom.errors import Refused
from zloom.messages import FailDevice, Forget
from zloom.model import Event
from zloom_broker.attempt import Attempt
from zloom_broker.failures import Failures
from zloom_broker.hub import Hub, Peer
from zloom_broker.membership import Membership
from zloom_broker.permissions import OWNER, Access, check_runs
from zloom_broker.queries import Queries
from zloom_broker.records import AttemptForgotten, DeviceFailed
from zloom_broker.requests import Requests, digest_of, done

MAX_REASON = 500
"""Characters that are kept of a reason."""


class Errands:
    """Carries out `FailDevice` and `Forget`."""

    def __init__(
        self,
        hub: Hub,
        requests: Requests,
        queries: Queries,
        failures: Failures,
        membership: Membership,
        device_failed: Callable[[DeviceFailed, float], None],
    ) -> None:
        self._hub = hub
        self._requests = requests
        self._queries = queries
        self._failures = failures
        self._membership = membership
        self._device_failed = device_failed

    def fail_device(self, peer: Peer, request: FailDevice, now: float, concerns: Access = OWNER) -> None:
        """Somebody says that a device failed: write it down, then tell each replica on it.

        Args:
            peer: Who asks.
            request: What he says.
            now: Seconds on the monotonic clock.
            concerns: Told are replicas of this access's runs alone.

        Raises:
            Refused: It cannot be done; nothing was changed.
        """
        if self._requests.seen_before(peer, request, now):
            return
        self._hub.check_takes_requests()
        known = self._queries.devices(peer.access)
        if request.device not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Refused(
                "unknown_device", f"unknown device {request.device[:64]!r}; known are: {names[:1000]}"
            )
        # A device that runs share is known by one of them, and its failure is told to all.
        replicas = self._queries.devices(concerns)[request.device].replicas
        runs = {self._hub.state.homes[replica][0] for replica in replicas}
        check_runs(peer.access, runs, f"report {request.device[:64]!r}")
        record = DeviceFailed(
            device=request.device,
            reason=request.reason[:MAX_REASON],
            by=peer.user,
            request_id=request.id,
            request_digest=digest_of(request),
            replicas=replicas,
            at=self._hub.wall(now),
        )

        def then(waiting: list[Peer]) -> None:
            self._failures.device_failed(record, self._hub.now)
            self._done(waiting, record)
            self._device_failed(record, self._hub.now)

        self._requests.commit(peer, request, record.request_digest, [record], then)

    def forget(self, peer: Peer, request: Forget, now: float) -> None:
        """Forget an attempt that nobody is in.

        Raises:
            Refused: It cannot be done; nothing was changed.
        """
        if self._requests.seen_before(peer, request, now):
            return
        self._hub.check_takes_requests()
        attempt = self._queries.attempt(request, peer.access)
        self._check_empty(attempt)
        key = attempt.key
        record = AttemptForgotten(
            run=attempt.run,
            attempt=attempt.id,
            by=peer.user,
            request_id=request.id,
            request_digest=digest_of(request),
            replicas=list(attempt.replicas),
            at=self._hub.wall(now),
        )

        def then(waiting: list[Peer]) -> None:
            self._hub.forgetting.discard(key)
            self._hub.event(Event("forgotten", *key, text=f"by {peer.user}"), now)
            self._done(waiting, record)

        self._hub.forgetting.add(key)
        self._requests.commit(
            peer, request, record.request_digest, [record], then, lambda: self._hub.forgetting.discard(key)
        )

    def _check_empty(self, attempt: Attempt) -> None:
        key = attempt.key
        there = [replica.id for replica in attempt.present()] + self._membership.joining(key)
        if there:
            text = (
                f"{attempt.run} ({attempt.id}) still has replicas: {', '.join(there)[:1000]}; stop it first"
            )
            raise Refused("still_live", text)
        if key in self._hub.forgetting:
            raise Refused("unknown_attempt", f"{attempt.run} ({attempt.id}) is being forgotten already")

    def _done(self, waiting: list[Peer], errand: AttemptForgotten | DeviceFailed) -> None:
        for peer in waiting:
            self._hub.send(peer, done(errand))
