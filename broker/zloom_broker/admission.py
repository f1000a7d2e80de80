"""Who may connect on TCP: the ZAP handler of a broker, on its loop, and the list that it goes by.

pyzmq's authenticator ends its task at the first exception, after which each handshake hangs, and keeps the
old list when a new one cannot be read, so that a revocation is lost. Here an exception fails the handshake
that it befell, and a list that cannot be read admits nobody. Where the process is short of something, which
says nothing of anybody's key, the list of before holds until the new one can be read.
"""

import asyncio
import errno
import logging
from collections.abc import Callable

from zloom.socket_options import Context, SocketOptions
from zloom.socket_sender import Sender
from zloom.sockets import DrainSocket
from zloom_broker.keyring import Keyring
from zloom_broker.permissions import OWNER, Access, access_of
from zloom_broker.users import Users
from zloom_broker.zap import ENDPOINT, answer

LOOK = 0.2
"""Seconds between looks at the list for those who only listen; one costs microseconds."""

DOMAIN = b"zloom"

SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Of descriptors or memory: it passes."""


class Admission:
    """Admits peers on TCP by their keys; nobody else is asked for one. Not thread-safe.

    Args:
        context: Of the sockets that are to be guarded.
        keyring: Of the broker.
        on_revoked: Called with the users whose keys were taken or mean something else now.

    Raises:
        SettingsError: The keys cannot be read, or others can read them too.
        TransportError: Another broker guards sockets of this context.
    """

    def __init__(self, context: Context, keyring: Keyring, on_revoked: Callable[[set[str]], None]) -> None:
        self._keyring = keyring
        self._on_revoked = on_revoked
        self._log = logging.getLogger("zloom.broker")
        self._loop = asyncio.get_running_loop()
        self._broker_key = keyring.broker_key()
        self._stamp = keyring.stamp()
        self._users = keyring.users()
        self._waits = False
        """A list that was changed waits to be read."""
        self._expelled: set[str] = set()
        """Public keys."""
        self.refused = 0
        """Handshakes."""
        self._socket = DrainSocket(context, "router", self._on_request)
        try:
            self._socket.bind(ENDPOINT)
        except BaseException:
            self._socket.close()
            raise
        self._timer = self._loop.call_later(LOOK, self._on_timer)

    def options(self) -> SocketOptions:
        """Return what sockets on TCP are secured with."""
        return SocketOptions(
            curve_server=True,
            curve_public_key=self._broker_key.public_key.encode(),
            curve_secret_key=self._broker_key.secret_key.encode(),
            zap_domain=DOMAIN,
        )

    def access(self, sender: Sender) -> Access | None:
        """Return what the sender of a message may do; None when his key is good no more."""
        if sender.key:
            user = self._users.of_key(sender.key)
            return None if user is None or sender.key in self._expelled else access_of(user)
        # Only ipc and inproc let peers in without a key.
        return None if sender.is_remote else OWNER

    def expel(self, name: str) -> None:
        """Take a user's key from him for the rest of this life."""
        self._expelled |= {user.public_key for user in self._users if user.name == name}
        self._on_revoked({name})

    def close(self) -> None:
        """Stop; nobody can connect any more."""
        self._timer.cancel()
        self._socket.close()

    # --- the handshake -----------------------------------------------------------------------

    def _on_request(self, frames: list[bytes]) -> None:
        try:
            reply, admitted = answer(frames, self._knows)
        except Exception:  # noqa: BLE001 - a bug must cost this handshake, which times out, and no other
            self._log.exception("a handshake could not be judged")
            return
        self.refused += not admitted
        self._socket.send(reply)

    def _knows(self, key: str) -> bool:
        self.look()
        return key not in self._expelled and self._users.of_key(key) is not None

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(LOOK, self._on_timer)
        self.look()

    # --- the list ----------------------------------------------------------------------------

    def look(self) -> None:
        """Read the list anew if it was changed, and tell of those who lost their keys.

        Done before each handshake and message on control, so that a revocation holds from then on, and now
        and then for those who only listen.
        """
        stamp = self._keyring.stamp()
        if stamp == self._stamp:
            return
        users = self._read()
        self._waits = users is None
        if users is None:
            return
        self._stamp = stamp
        before, self._users = self._users, users
        gone = {user.name for user in before if self._users.of_key(user.public_key) != user}
        self._log.info("the list of users was read anew")
        if gone:
            self._log.warning("revoked or changed: %s", ", ".join(sorted(gone)))
            self._on_revoked(gone)

    def _read(self) -> Users | None:
        """Return the list; None where it is to be tried again."""
        try:
            return self._keyring.users()
        except Exception as error:  # noqa: BLE001 - the list of before may name who was revoked
            if getattr(error.__cause__, "errno", None) in SHORT:
                if not self._waits:  # looked for at each message
                    self._log.error("the list of users was changed, and cannot be read yet: %s", error)
                return None
            self._log.error("nobody is admitted on TCP, for the list of users cannot be read: %s", error)
            return Users()
