"""Use an installed zloom as its users would: the broker and a peer that knows only the protocol.

Run it outside the checkout with the environment's own Python; the standard library is all that it needs.
"""

import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

DEADLINE = 20.0  # seconds for a process to say its first line, and for the peer to be done
LEAVE = 2.0  # seconds in which the broker must leave when it is told to


def start(*command: str | Path) -> subprocess.Popen[str]:
    """Start a process and wait for its first line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], DEADLINE)[0]:
        process.kill()
        sys.exit(f"FAILED: {command} said nothing within {DEADLINE:g} s")
    print(process.stdout.readline(), end="", flush=True)
    return process


def finish(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a process to end, and insist on exit status 0."""
    try:
        status: object = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        status = f"not there within {seconds:g} s"
    if status != 0:
        sys.exit(f"FAILED: {process.args!r} ended with status {status}")


def main(bare_client: str) -> None:
    """Run everything once."""
    binaries = Path(sys.executable).parent
    zloom = binaries / "zloom"
    with tempfile.TemporaryDirectory(prefix="zloom-ci.") as folder:
        os.environ["ZLOOM_BROKER"] = endpoint = f"ipc://{folder}/control.sock"
        subprocess.run([zloom, "--help"], check=True)
        broker = start(zloom, "broker", "--bind", endpoint, "--data-dir", f"{folder}/data")
        try:
            client = start(sys.executable, "-u", bare_client, "--broker", endpoint)
            subprocess.run([zloom, "set", "bare", "learning_rate=0.01"], check=True, timeout=DEADLINE)
            finish(client, DEADLINE)
            broker.terminate()
            finish(broker, LEAVE)
        finally:
            broker.kill()
    print("the wheel alone is enough", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
