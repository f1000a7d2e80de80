"""A trainer that can be steered, with pyzmq and msgpack alone: what a peer in any language has to do.

    $ zloom broker
    $ python examples/bare_client.py
    $ zloom set bare learning_rate=0.01

The words in quotes are sections of docs/protocol.md. In Python one would use `zloom.Weavelet`.
"""

import argparse
import contextlib
import json
import os
import secrets
import socket
import tempfile
import time
from typing import Any

import msgpack
import zmq

# This process: "replica". Its id is fresh at each start, its attempt at each launch of the job.
REPLICA: dict[str, Any] = {
    "id": secrets.token_hex(8),
    "run": "bare",
    "attempt": secrets.token_hex(4),
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "keys": [
        {
            "name": "learning_rate",
            "schema": {"type": ["number"], "exclusiveMinimum": 0, "maximum": 1},
            "baseline": 0.1,
        }
    ],
}


def default_broker() -> str:
    """Return where the broker of this user is, on Linux: "Where the broker is"."""
    system = f"/run/user/{os.getuid()}"
    fallback = system if os.path.isdir(system) else f"{tempfile.gettempdir()}/runtime-{os.getuid()}"
    return f"ipc://{os.environ.get('XDG_RUNTIME_DIR') or fallback}/zloom/control.sock"


class Trainer:
    """A training loop that only counts its steps, and its conversation with a broker."""

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.context = zmq.Context()
        self.step = 0
        self.position: dict[str, Any] = {"epoch": "", "revision": -1, "chain": b""}
        self.unacknowledged: dict[int, dict[str, Any]] = {}  # revision → outcome
        self.acknowledged = 0
        self.beat = 1.0  # "Liveness": the newest that was told
        self.connect()

    def connect(self) -> None:
        """Make both sockets: "Transports and sockets". No routing id; hellos to nobody must not pile up."""
        self.control = self.context.socket(zmq.DEALER)
        self.control.set(zmq.IMMEDIATE, 1)
        self.updates = self.context.socket(zmq.SUB)
        for each in (self.control, self.updates):
            each.set(zmq.RCVHWM, 0)
        self.use_key(self.control, self.updates)
        self.control.connect(self.broker)
        self.begin()

    def use_key(self, *sockets: "zmq.Socket[bytes]") -> None:
        """Prove who this is to a broker on TCP, with the key file that its owner gave out."""
        path = os.environ.get("ZLOOM_KEY")
        if not path or not self.broker.startswith("tcp://"):
            return
        with open(path, encoding="utf-8") as file:
            key = {name: str(value).encode() for name, value in json.load(file).items()}
        for each in sockets:
            each.set(zmq.CURVE_PUBLICKEY, key["public_key"])
            each.set(zmq.CURVE_SECRETKEY, key["secret_key"])
            each.set(zmq.CURVE_SERVERKEY, key["broker_key"])

    def begin(self) -> None:
        """Introduce this process, with a fresh nonce: "Connecting"."""
        self.welcome: dict[str, Any] = {}
        self.nonce = secrets.token_hex(8)
        self.received = 0
        self.echoed = self.synced = False
        self.heard = self.answered = self.due = time.monotonic()

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message on control: "Frames". What cannot be sent now is due again."""
        with contextlib.suppress(zmq.Again):
            self.control.send_multipart([b"zloom", msgpack.packb({"type": kind, **fields})], zmq.NOBLOCK)

    def send_again(self) -> None:
        """Ask again for whatever was not answered: "Sending again"."""
        if not self.control.poll(0, zmq.POLLOUT):
            return  # no broker is there
        self.due = time.monotonic() + 1.0
        if not self.welcome:
            hello = {"protocols": [1], "role": "weavelet", "software": "bare", "replica": REPLICA}
            self.send("hello", endpoint=self.broker, nonce=self.nonce, **hello)
        elif not self.echoed:  # "Joining": the echo says that all subscriptions have arrived
            self.updates.unsubscribe(f"echo/{self.nonce}/")
            self.updates.subscribe(f"echo/{self.nonce}/")
        elif not self.synced:
            self.send("sync", nonce=self.nonce, **self.position)
        elif self.unacknowledged:
            self.due = time.monotonic() + 6 * self.beat
            self.send("outcomes", epoch=self.position["epoch"], outcomes=self.unacknowledged)

    def on_control(self, message: dict[str, Any]) -> None:
        """Take what the broker says to this peer."""
        self.received += 1
        self.answered = time.monotonic()
        self.beat = message.get("beat") or self.beat
        match message["type"]:
            case "welcome" if not self.welcome:
                self.received = 1  # "Credit": each side counts from here, and a pong tells it
                self.subscribe(message)
            case "wait":
                self.heard = self.answered
                self.due = self.heard + message["retry"]
            case "error" if not self.welcome:
                raise SystemExit(f"the broker refuses this peer: {message['text']}")
            case "hello_required":
                self.begin()
            case "ping":
                self.send("pong", id=message["id"], received=self.received)
                for number in message.get("recorded", []):
                    self.acknowledged += self.unacknowledged.pop(number, None) is not None
            case "snapshot" if not self.synced:
                self.position = {name: message[name] for name in self.position}
                self.synced = True
                for revision in message.get("pending", []):
                    self.apply(revision)
                print(f"run bare is active at revision {message['revision']}", flush=True)
            case "log":  # one with nothing in it still names the epoch
                self.position["epoch"] = message["epoch"]
                self.synced = not message.get("more", False)
                for revision in message["revisions"]:
                    self.follow(revision)
            case "failure":
                self.send("failure_received", id=message["id"])

    def subscribe(self, welcome: dict[str, Any]) -> None:
        """Connect updates and subscribe, the nonce last: "Joining"."""
        self.welcome = welcome
        host = self.broker.removeprefix("tcp://").rpartition(":")[0]
        self.updates.connect(welcome["updates"].replace("tcp://*:", f"tcp://{host}:"))
        for topic in (f"steer/bare/{REPLICA['attempt']}/", f"echo/{self.nonce}/"):
            self.updates.subscribe(topic)
        self.heard, self.due = time.monotonic(), time.monotonic() + 1.0

    def on_updates(self, message: dict[str, Any]) -> None:
        """Take what the broker says to all who subscribed: "Following"."""
        self.heard = time.monotonic()
        self.beat = message.get("beat") or self.beat
        match message["type"]:
            case "echo" if message["nonce"] == self.nonce:
                self.echoed, self.due = True, self.heard
            case "beat" | "revised" if message["epoch"] != self.welcome.get("epoch"):
                self.begin()  # "Epochs": another life of the broker
            case "revised" if self.synced:  # before that: the snapshot or the log will have it
                self.follow(message["revision"])
            case "beat" if (message.get("revision") or 0) > self.position["revision"]:
                self.synced = False

    def follow(self, revision: dict[str, Any]) -> None:
        """Carry out the revision that comes next, ignore earlier ones, and ask for what lies between."""
        if revision["revision"] == self.position["revision"] + 1:
            self.position |= {"revision": revision["revision"], "chain": revision["chain"]}
            self.apply(revision)
        elif revision["revision"] > self.position["revision"]:
            self.synced, self.due = False, self.heard

    def apply(self, revision: dict[str, Any]) -> None:
        """Carry out a revision, and note what became of it: "Outcomes"."""
        outcome = {"replica": REPLICA["id"], "outcome": "rejected", "error": "undeclared", "step": self.step}
        if "learning_rate" in revision.get("changes", {}):
            print(f"revision {revision['revision']} at step {self.step}: {revision['changes']}", flush=True)
            outcome |= {"outcome": "applied", "error": ""}
        self.unacknowledged[revision["revision"]] = outcome
        self.due = time.monotonic()

    def train(self, changes: int) -> None:
        """Count steps until so many changes were answered and acknowledged, then leave: "Leaving"."""
        while self.acknowledged < changes:
            now = time.monotonic()
            if now >= min(self.heard + 3 * self.beat, self.answered + 6 * self.beat):  # "Liveness"
                self.control.close(linger=0)
                self.updates.close(linger=0)
                self.connect()
            if now >= self.due:
                self.send_again()
            self.step += 1
            zmq.select([self.control, self.updates], [], [], timeout=0.05)
            for channel, take in ((self.control, self.on_control), (self.updates, self.on_updates)):
                while channel.poll(0):
                    take(msgpack.unpackb(channel.recv_multipart()[1]))
        self.send("goodbye", reason="finished", step=self.step)
        self.control.close(linger=1000)
        self.updates.close(linger=0)
        self.context.term()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A trainer of run `bare` that can be steered.")
    parser.add_argument("--broker", default=os.environ.get("ZLOOM_BROKER"), help="endpoint of control")
    parser.add_argument("--changes", type=int, default=1, help="how many changes to take before it leaves")
    arguments = parser.parse_args()
    try:
        Trainer(arguments.broker or default_broker()).train(arguments.changes)
    except KeyboardInterrupt:
        os._exit(130)  # what waits for a broker would hold up the end of the context
