"""The floor under a fan-out: plain ZeroMQ over the same connections, with nothing done at either end.

operator (DEALER) → server (ROUTER, XPUB) → each subscriber (SUB), which answers (DEALER) with what it got;
once all have, the server answers the operator. No message is decoded, checked, numbered, written or handed to
another thread.
"""

import select
import sys

import zmq

from bench.echo import Context, open_socket
from bench.roles import Ready, announce
from zloom.socket_options import new_context

SEPARATOR = ","
"""Between the endpoints of the router and of the publisher."""


def serve(context: Context, size: int, ready: Ready) -> None:
    """Pass each message of the operator on to so many subscribers, and answer it once all have. Blocks."""
    with (
        open_socket(context, zmq.ROUTER, "tcp://127.0.0.1:*") as router,
        context.socket(zmq.XPUB) as publisher,
    ):
        publisher.linger = 0
        publisher.xpub_verbose = True
        publisher.bind("tcp://127.0.0.1:*")
        ready(SEPARATOR.join(each.get_string(zmq.LAST_ENDPOINT) for each in (router, publisher)))
        for _ in range(size):
            publisher.recv()  # a subscription
        while True:
            operator, message = router.recv_multipart()
            publisher.send(message)
            for _ in range(size):
                router.recv_multipart()
            router.send_multipart([operator, message])


class Subscribers:
    """So many subscribers in one process, on one thread that waits for all of them at once."""

    def __init__(self, context: Context, endpoints: str, count: int) -> None:
        control, updates = endpoints.split(SEPARATOR)
        self._epoll = select.epoll()
        self._pairs: dict[int, tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = {}
        for _ in range(count):
            answers = open_socket(context, zmq.DEALER, control)
            subscriber = open_socket(context, zmq.SUB, updates)
            subscriber.subscribe(b"")
            self._pairs[subscriber.fileno()] = subscriber, answers
            self._epoll.register(subscriber.fileno(), select.EPOLLIN | select.EPOLLET)

    def answer(self) -> None:
        """Answer whatever comes. Blocks for ever."""
        events = int(zmq.EVENTS)
        for subscriber, answers in self._pairs.values():
            _answer(subscriber, answers, events)
        while True:
            for descriptor, _ in self._epoll.poll():
                _answer(*self._pairs[descriptor], events)


def _answer(subscriber: zmq.Socket[bytes], answers: zmq.Socket[bytes], events: int) -> None:
    while int(subscriber.getsockopt(events)) & zmq.POLLIN:
        answers.send(subscriber.recv())


if __name__ == "__main__":
    serve(new_context(), int(sys.argv[1]), announce)
