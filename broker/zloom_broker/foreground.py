"""A broker as a process in the foreground: signals, the log, and the line that says that it is ready."""

import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import asdict

from zloom import stop_signals
from zloom.errors import SettingsError, ZloomError
from zloom_broker.log import logging_to_stderr
from zloom_broker.server import Server, running
from zloom_broker.settings import BrokerSettings


async def serve(settings: BrokerSettings, ready: Callable[[Server], None]) -> None:
    """Run a broker until a signal ends it: SIGTERM, SIGINT or SIGHUP.

    Args:
        settings: Where to bind and to write.
        ready: Called once peers can connect.
    """
    stop = asyncio.Event()
    stop_signals.heed(asyncio.get_running_loop(), stop.set)
    async with AsyncExitStack() as ends:
        with _uncollected():
            server = await ends.enter_async_context(running(settings))
        host, port = settings.metrics_host, settings.metrics_port
        if port is not None:
            port = ends.enter_context(_metrics(host, port, server))
            logging.getLogger("zloom.broker").info("metrics at http://%s:%d/metrics", host, port)
        ready(server)
        await stop.wait()
        logging.getLogger("zloom.broker").info("leaving, as it was told to")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage while the history is read, and never in what was read.

    It has none, and a look at each object again and again takes as long as reading it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _spare_survivors(phase: str, info: Mapping[str, int]) -> None:
    """Leave what survived a full collection out of those to come.

    Most of it is history: once there is much, the loop would stand still for seconds to look at it again.
    """
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def _metrics(host: str, port: int, server: Server) -> AbstractContextManager[int]:
    try:
        from zloom_broker.metrics_port import serving
    except ImportError as error:
        text = "--metrics-port needs the package prometheus-client: pip install 'zloom[metrics]'"
        raise SettingsError(text) from error
    return serving(host, port, lambda: server.measuring.newest)


def run(settings: BrokerSettings, *, as_json: bool = False) -> int:
    """Run a broker in the foreground, and print one line on stdout when peers can connect.

    Args:
        settings: Where to bind and to write.
        as_json: Whether the line is one of JSON.

    Returns:
        The exit code: 0.

    Raises:
        ZloomError: It could not start; the text says what to do.
    """
    gc.callbacks.append(_spare_survivors)
    with logging_to_stderr(settings.log_level):
        for warning in settings.check():
            logging.getLogger("zloom.broker").warning(warning)
        asyncio.run(serve(settings, _announce_as_json if as_json else _announce))
    return 0


def _announce_as_json(server: Server) -> None:
    bound = [asdict(pair) for pair in server.addresses.bound]
    _say(json.dumps({"ready": True, "bound": bound, "epoch": server.epoch}))


def _announce(server: Server) -> None:
    pairs = " ".join(f"control={pair.control} updates={pair.updates}" for pair in server.addresses.bound)
    _say(f"zloom broker ready {pairs} epoch={server.epoch}")


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:  # whoever waits for the line would wait for ever
        # Left as it is, what it holds would be written, and fail, once more at the end of the process.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise ZloomError(f"cannot write to stdout: {error.strerror}") from error
