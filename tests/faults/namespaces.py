"""Two hosts and a link between them, as network namespaces: packets vanish there, and no kernel tells."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

HUB, FAR = "10.77.0.1", "10.77.0.2"
"""Addresses of the broker's host and of the other one."""

NOBODY = "02:00:00:00:00:99"
"""A hardware address that neither has: what is sent there arrives, and is thrown away."""

Cut = Literal["both", "up", "down", "link"]
"""What is lost: packets in both directions, those to the broker, those from it; or the link is down."""

Host = Literal["hub", "far"]


_UP: tuple[Host, str, str] = (
    "far",
    f"ip neigh replace {HUB} lladdr {NOBODY} dev far nud permanent",
    f"ip neigh del {HUB} dev far",
)
_DOWN: tuple[Host, str, str] = (
    "hub",
    f"ip neigh replace {FAR} lladdr {NOBODY} dev near nud permanent",
    f"ip neigh del {FAR} dev near",
)
_LINK: tuple[Host, str, str] = ("hub", "ip link set near down", "ip link set near up")

_CUTS: dict[Cut, tuple[tuple[Host, str, str], ...]] = {
    "both": (_UP, _DOWN),
    "up": (_UP,),
    "down": (_DOWN,),
    "link": (_LINK,),
}
"""On which host which commands cut and heal."""


def missing() -> str:
    """Return why this machine cannot have them; empty where it can."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    command = [*_UNSHARE, "ip", "link", "add", "near", "type", "veth"]
    tried = subprocess.run(command, capture_output=True, check=False)
    return f"no namespaces of its own: {tried.stderr.decode().strip()}" if tried.returncode else ""


_UNSHARE = ("unshare", "--user", "--map-root-user", "--net")


def _within(pid: int) -> list[str]:
    return ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials"]


@dataclass(frozen=True)
class Hosts:
    """Both hosts; each is there as long as a process in it is."""

    hub: int
    far: int

    def on(self, host: Host, *command: str) -> list[str]:
        """Return the command as one that runs there; the process that it starts is the command's own."""
        return [*_within(self.hub if host == "hub" else self.far), *command]

    def do(self, host: Host, command: str) -> None:
        """Run a command there."""
        subprocess.run(self.on(host, *command.split()), check=True)

    def cut(self, what: Cut) -> None:
        """Have it lost from now on."""
        for host, command, _ in _CUTS[what]:
            self.do(host, command)

    def heal(self, what: Cut) -> None:
        """Have it arrive again."""
        for host, _, command in _CUTS[what]:
            self.do(host, command)


@contextlib.contextmanager
def hosts() -> Iterator[Hosts]:
    """Make them, with a link between them."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(_sleeper([*_UNSHARE]))
        far = stack.enter_context(_sleeper([*_within(hub), "unshare", "--net"]))
        made = Hosts(hub, far)
        made.do("hub", f"ip link add near type veth peer name far netns {far}")
        made.do("hub", f"ip addr add {HUB}/30 dev near")
        made.do("far", f"ip addr add {FAR}/30 dev far")
        for link in ("lo", "near"):
            made.do("hub", f"ip link set {link} up")
        for link in ("lo", "far"):
            made.do("far", f"ip link set {link} up")
        yield made


@contextlib.contextmanager
def _sleeper(within: list[str]) -> Iterator[int]:
    """Have a process sleep in new namespaces; yield its id once it is in them."""
    command = [*within, "sh", "-c", "echo in; exec sleep infinity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            yield process.pid
        finally:
            process.kill()
