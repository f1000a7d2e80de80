"""The threats that docs/security.md names, each tried on a real broker on TCP."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

import zloom
from tests.support import DEADLINE
from zloom import codec
from zloom import messages as m
from zloom.errors import Refused, SettingsError, TransportError
from zloom.security import ClientKey, read_key
from zloom.settings import ClientSettings, WeaveletSettings
from zloom_broker.keyring import Keyring
from zloom_broker.server import Server, running
from zloom_broker.settings import BrokerSettings
from zloom_broker.users import Role


@dataclass
class Site:
    """A broker on TCP with keys, and an ipc endpoint for its owner."""

    keyring: Keyring
    server: Server
    tcp: str
    ipc: str

    def key(self, name: str, role: Role, *runs: str) -> Path:
        """Give out a key; the broker knows it once its list is read anew."""
        return self.keyring.add(name, role, list(runs) or ["*"])


KEYS: tuple[tuple[str, Role, str], ...] = (
    ("alice", "operator", "a"),
    ("olga", "observer", "a"),
    ("node-a", "weavelet", "a"),
    ("node-b", "weavelet", "b"),
)


@contextlib.asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Run such a broker, with a key for each of `KEYS`."""
    keyring = Keyring(tmp_path / "auth")
    keyring.init()
    for name, role, run in KEYS:
        keyring.add(name, role, [run])
    ipc = f"ipc://{tmp_path}/s" if len(str(tmp_path)) < 90 else f"ipc:///tmp/zloom-{os.getpid()}.s"
    bind = ("tcp://127.0.0.1:*", ipc)
    settings = BrokerSettings(bind=bind, data_dir=tmp_path / "data", auth_dir=keyring.folder)
    assert settings.check() == []
    async with running(settings) as server:
        yield Site(keyring, server, server.addresses.bound[0].control, ipc)


def file_of(place: Site, name: str) -> Path:
    return place.keyring.folder / "keys" / f"{name}.key"


def operator(place: Site, name: str) -> contextlib.AbstractAsyncContextManager[zloom.Operator]:
    settings = ClientSettings(timeout=DEADLINE, connect_timeout=DEADLINE, key=file_of(place, name))
    return zloom.connect(place.tcp, settings=settings)


def owner(place: Site) -> contextlib.AbstractAsyncContextManager[zloom.Operator]:
    return zloom.connect(place.ipc, user="me@here")


@contextlib.asynccontextmanager
async def weavelet(place: Site, run: str, key: str) -> AsyncIterator[zloom.AsyncWeavelet]:
    """Run a weavelet that ticks by itself."""
    settings = WeaveletSettings(key=file_of(place, key))
    made = zloom.AsyncWeavelet(
        run=run, broker=place.tcp, rank=0, world_size=1, attempt="one", settings=settings
    )
    made.on_config("learning_rate", initial=0.1)(_take)

    async def train() -> None:
        while True:
            await made.tick()
            await asyncio.sleep(0.005)

    async with made:
        assert await made.wait_until_active(DEADLINE)
        training = asyncio.create_task(train())
        try:
            yield made
        finally:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)


def _take(value: float) -> None:
    assert value > 0


@contextlib.contextmanager
def raw(kind: int, endpoint: str, key: ClientKey | None) -> Iterator[zmq.Socket[bytes]]:
    """Open a socket as somebody would who has a key, and no zloom."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        if key is not None:
            socket.curve_publickey = key.public_key.encode()
            socket.curve_secretkey = key.secret_key.encode()
            socket.curve_serverkey = key.broker_key.encode()
        socket.connect(endpoint)
        yield socket


async def receive(socket: zmq.Socket[bytes], seconds: float = DEADLINE) -> list[bytes]:
    """Receive without holding the loop, on which the broker runs; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(socket.poll, 20):
            pass
    return socket.recv_multipart()


async def ask(socket: zmq.Socket[bytes], message: m.Message) -> m.FromBroker:
    """Send a message and return what comes back."""
    socket.send_multipart(codec.control_frames(message))
    return codec.from_broker.decode(codec.control_payload(await receive(socket)))


async def until_refused(asking: zloom.Operator) -> None:
    """Ask until an answer is an error."""
    async with asyncio.timeout(DEADLINE):
        while True:
            await asking.runs()


def hello(user: str = "root@everywhere") -> m.Hello:
    return m.Hello(protocols=[1], role="operator", user=user)


async def test_whoever_has_no_good_key_is_told_so(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        elsewhere = Keyring(tmp_path / "elsewhere")
        elsewhere.init()
        stranger = elsewhere.add("alice", "operator", ["*"])
        with pytest.raises(Refused, match="the broker wants a key") as refused:
            async with zloom.connect(place.tcp):
                pass
        assert refused.value.code == "unauthenticated"
        # A key that another broker gave out pins that broker: here the handshake breaks off.
        impatient = ClientSettings(connect_timeout=1.0, key=stranger)
        with pytest.raises(
            zloom.BrokerUnreachable, match="is it the broker that the file in ZLOOM_KEY is for"
        ):
            async with zloom.connect(place.tcp, settings=impatient):
                pass
        # The right broker, and a key that is not on its list.
        key, own = read_key(stranger, ClientKey), read_key(file_of(place, "alice"), ClientKey)
        forged = ClientKey(1, "alice", key.public_key, key.secret_key, own.broker_key)
        with raw(zmq.DEALER, place.tcp, forged) as socket:
            socket.send_multipart(codec.control_frames(hello()))
            with pytest.raises(TimeoutError):
                await receive(socket, 0.5)
        async with owner(place) as me, asyncio.timeout(DEADLINE):  # strangers do not keep others out
            while not (await me.stats()).counters.get("handshakes_refused"):
                pass


async def test_who_a_user_is_and_what_he_may_is_his_keys_to_say(tmp_path: Path) -> None:
    async with site(tmp_path) as place, weavelet(place, "a", "node-a"), weavelet(place, "b", "node-b"):
        async with operator(place, "alice") as alice, operator(place, "olga") as olga, owner(place) as me:
            result = await alice.set("a", {"learning_rate": 0.2})
            assert result.applied_everywhere
            history = await olga.history("a")
            assert [entry.revision.by for entry in history] == ["alice"]
            with pytest.raises(Refused, match=r"olga \(observer of a\) may not send set_config.* operator"):
                await olga.set("a", {"learning_rate": 0.3})
            with pytest.raises(Refused, match=r"alice \(operator of a\) may not send set_config for b"):
                await alice.set("b", {"learning_rate": 0.3})
            assert [each.run for each in await alice.runs()] == ["a"]
            assert sorted(each.run for each in await me.runs()) == ["a", "b"]
        with raw(zmq.DEALER, place.tcp, read_key(file_of(place, "node-a"), ClientKey)) as socket:
            error = await ask(socket, hello())
            assert isinstance(error, m.Error)
            assert error.code == "forbidden"


class Wire:
    """A listener between a peer and the broker, who keeps what passes and may change it."""

    def __init__(self, endpoint: str) -> None:
        self._host, _, self._port = endpoint.removeprefix("tcp://").rpartition(":")
        self.passed = bytearray()
        self.cut = asyncio.Event()
        self.forging = False

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._on_peer, "127.0.0.1", 0)
        try:
            yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _on_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.passed += data
                writer.write(bytes([*data[:-1], data[-1] ^ 1]) if self.forging else data)
        writer.close()
        if self.forging:
            self.cut.set()


async def test_who_listens_on_the_wire_reads_nothing_and_changes_nothing(tmp_path: Path) -> None:
    def change(number: int) -> m.SetConfig:
        note = f"nobody else should read {number}"
        return m.SetConfig(id=f"q{number}", run="a", changes={"learning_rate": 0.2}, note=note)

    async with site(tmp_path) as place, weavelet(place, "a", "node-a"):
        wire, key = Wire(place.tcp), read_key(file_of(place, "alice"), ClientKey)
        async with wire.listening() as endpoint:
            with raw(zmq.DEALER, endpoint, key) as socket:
                assert isinstance(await ask(socket, hello()), m.Welcome)
                assert isinstance(await ask(socket, change(1)), m.RevisionState)
                assert len(wire.passed) > 500
                words = (b"nobody else", b"learning_rate", b"set_config", b"welcome")
                assert not any(word in wire.passed for word in words)
                wire.forging = True
                socket.send_multipart(codec.control_frames(change(2)))
                async with asyncio.timeout(DEADLINE):
                    await wire.cut.wait()  # a message that was changed ends the connection that it came on
        async with owner(place) as me:
            assert [entry.revision.request_id for entry in await me.history("a")] == ["q1"]


async def test_an_observer_of_one_run_never_receives_another(tmp_path: Path) -> None:
    async with site(tmp_path) as place, weavelet(place, "a", "node-a"), weavelet(place, "b", "node-b"):
        updates = place.server.addresses.bound[0].updates
        with raw(zmq.SUB, updates, read_key(file_of(place, "olga"), ClientKey)) as spy:
            for topic in (b"", b"w", b"watch/", b"watch/b/", b"steer/b/", b"steer/", b"own/", b"echo/"):
                spy.subscribe(topic)
            spy.subscribe(b"watch/a/")
            first = await receive(spy)  # node-a's status, so the subscriptions are there
            async with owner(place) as me:
                assert (await me.set("b", {"learning_rate": 0.2})).applied_everywhere
                assert (await me.set("a", {"learning_rate": 0.2})).applied_everywhere
            heard = [first]
            while not any(b"revised" in frames[1] for frames in heard):
                heard.append(await receive(spy))
            assert {frames[0] for frames in heard} == {b"watch/a/"}
        async with operator(place, "olga") as olga:
            with pytest.raises(Refused, match=r"olga \(observer of a\) may not subscribe to 'watch/b/'"):
                async with olga.watch("b") as feed:
                    await anext(feed)


async def test_one_who_is_refused_ends_nobody_elses_watch(tmp_path: Path) -> None:
    """XPUB tells the end of his subscription, as of one that was admitted."""
    async with site(tmp_path) as place, weavelet(place, "a", "node-a"), operator(place, "olga") as olga:
        place.key("bert", "observer", "b")
        async with olga.watch("a") as feed:
            await statuses(feed, 1)
            async with operator(place, "bert") as bert:
                with pytest.raises(Refused, match="may not subscribe"):
                    await anext(bert.watch("a"))
            await statuses(feed, 3)


async def statuses(feed: AsyncIterator[object], count: int) -> None:
    """Wait until so many more have come."""
    async with asyncio.timeout(DEADLINE):
        while count:
            count -= isinstance(await anext(feed), m.Reported)


async def test_a_revoked_key_is_worth_nothing_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as place, weavelet(place, "a", "node-a"):
        updates = place.server.addresses.bound[0].updates
        olga_key = read_key(file_of(place, "olga"), ClientKey)
        async with operator(place, "olga") as olga, operator(place, "alice") as alice:
            with raw(zmq.SUB, updates, olga_key) as spy:
                spy.subscribe(b"watch/a/")
                await receive(spy)
                async with alice.watch("a") as feed:
                    place.keyring.revoke("olga")
                    with pytest.raises(Refused, match="revoked"):
                        await until_refused(olga)
                    while await asyncio.to_thread(spy.poll, 0):  # what came before
                        spy.recv_multipart()
                    # Whoever may stay is served on, over the updates that were bound anew …
                    assert (await alice.set("a", {"learning_rate": 0.2})).applied_everywhere
                    async with asyncio.timeout(DEADLINE):
                        async for seen in feed:
                            if isinstance(seen, m.Reported) and seen.status.revision == 1:
                                break
                    # … and the other hears no more.
                    assert not await asyncio.to_thread(spy.poll, 300)
        # The name may be given out again: the old key stays worthless.
        place.keyring.add("olga", "observer", ["a"])
        with raw(zmq.DEALER, place.tcp, olga_key) as socket:
            socket.send_multipart(codec.control_frames(hello()))
            with pytest.raises(TimeoutError):
                await receive(socket, 0.5)


async def test_a_list_that_cannot_be_read_admits_nobody(tmp_path: Path) -> None:
    async with site(tmp_path) as place, operator(place, "alice") as alice:
        await alice.runs()
        (place.keyring.folder / "users.list").write_bytes(b"{")
        with pytest.raises(Refused, match="revoked"):
            await until_refused(alice)
        async with owner(place) as me:
            assert await me.runs() == []


async def test_a_flood_of_subscriptions_costs_its_key_and_nobody_elses(tmp_path: Path) -> None:
    async with site(tmp_path) as place, operator(place, "alice") as alice:
        updates = place.server.addresses.bound[0].updates
        with raw(zmq.SUB, updates, read_key(file_of(place, "olga"), ClientKey)) as flood:

            def subscribe() -> None:
                for number in range(600):
                    flood.subscribe(b"watch/b/" + b"x" * 4000 + str(number).encode())

            await asyncio.to_thread(subscribe)
            async with owner(place) as me, asyncio.timeout(DEADLINE):
                while not (await me.stats()).counters.get("subscribers_expelled"):
                    pass
        with raw(zmq.DEALER, place.tcp, read_key(file_of(place, "olga"), ClientKey)) as socket:
            socket.send_multipart(codec.control_frames(hello()))
            with pytest.raises(TimeoutError):
                await receive(socket, 0.5)
        async with alice.watch("a"):
            assert await alice.runs() == []


async def test_a_peer_without_zloom_uses_a_key_too(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "bare_client.py"
    async with site(tmp_path) as place:
        environment = {**os.environ, "ZLOOM_KEY": str(place.key("bare", "weavelet", "bare"))}
        command = [sys.executable, "-u", str(script), "--broker", place.tcp]
        peer = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        try:
            assert peer.stdout is not None
            async with asyncio.timeout(DEADLINE):
                assert b"run bare is active" in await peer.stdout.readline()
        finally:
            peer.kill()
            await peer.wait()


async def test_a_trainer_without_a_key_warns_once_and_trains_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as place:
        warned = asyncio.Event()
        tell = logging.Handler()
        tell.emit = lambda record: warned.set()  # type: ignore[method-assign]
        logging.getLogger("zloom").addHandler(tell)
        try:
            async with zloom.AsyncWeavelet(run="a", broker=place.tcp, rank=0, world_size=1) as made:
                async with asyncio.timeout(DEADLINE):
                    await warned.wait()
                await made.tick()
        finally:
            logging.getLogger("zloom").removeHandler(tell)
        warnings = [record.message for record in caplog.records if record.name == "zloom"]
        assert [text for text in warnings if "the broker wants a key" in text] == warnings[:1]
        assert "the training goes on" in warnings[0]


async def test_a_second_broker_cannot_guard_the_same_context(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        assert place.server.addresses.bound[0].control.startswith("tcp://")
        taken = BrokerSettings(bind=(place.ipc,), data_dir=tmp_path / "other", auth_dir=place.keyring.folder)
        with pytest.raises(TransportError, match="another process already listens there"):
            async with running(taken):
                pass


def test_what_others_can_read_is_no_key(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "auth")
    keyring.init()
    file = keyring.add("alice", "operator", ["*"])
    of_users = keyring.folder / "users.list"
    for path, loose in ((file, 0o640), (file.parent, 0o711), (keyring.folder, 0o750), (of_users, 0o644)):
        mode = path.stat().st_mode & 0o777
        assert mode & 0o077 == 0
        path.chmod(loose)
        with pytest.raises(SettingsError, match=f"{path} has mode {loose:04o}, so others may have read"):
            read_both(keyring, file)
        path.chmod(mode)
    read_both(keyring, file)


def read_both(keyring: Keyring, file: Path) -> None:
    keyring.users()
    read_key(file, ClientKey)


def test_tcp_wants_keys_or_a_loud_no(tmp_path: Path) -> None:
    for endpoint in ("tcp://127.0.0.1:5555", "tcp://0.0.0.0:5555"):
        open_ = BrokerSettings(bind=(endpoint,), data_dir=tmp_path, auth_dir=tmp_path / "none")
        with pytest.raises(SettingsError, match=r"there are no keys in .*zloom auth init"):
            open_.check()
