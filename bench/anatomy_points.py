"""Which functions of zloom are stamped for the anatomy of a change, in each of its three processes."""

from bench.stamps import Point
from bench.trainer import Trainer
from zloom import codec
from zloom.client.link import OperatorLink
from zloom.engine import Engine
from zloom.mailbox import Mailbox
from zloom.session_sockets import SessionSockets
from zloom.sockets import DrainSocket
from zloom.weavelet import Weavelet
from zloom_broker.journal.store import Store
from zloom_broker.journal.writer import JournalWriter
from zloom_broker.ports import Ports
from zloom_broker.server import Server

OPERATOR = (
    Point("operator sends", DrainSocket, "send"),
    Point("operator reads", OperatorLink, "_on_control"),
)

BROKER = (
    Point("broker reads", Server, "_on_control"),
    Point("broker submits", JournalWriter, "submit"),
    Point("commit begins", Store, "append"),
    Point("commit ends", Store, "append", after=True),
    Point("broker is told of the commit", Server, "_on_committed"),
    Point("broker publishes", Ports, "publish"),
    # What is encoded for control is sent at once. `DrainSocket.send` would stamp publications too.
    Point("broker answers", codec, "control_frames", after=True),
)

TRAINER = (
    Point("weavelet reads", SessionSockets, "_read_update"),
    Point("weavelet hands over", Mailbox, "put"),
    Point("handler begins", Trainer, "set_learning_rate"),
    Point("training thread answers", Weavelet, "_answer"),
    Point("weavelet is told", Engine, "answer"),
    Point("weavelet sends", DrainSocket, "send"),
)

BY_PART = {"operator": OPERATOR, "broker": BROKER, "trainer": TRAINER}
