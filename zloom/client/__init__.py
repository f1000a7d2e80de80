"""The operator's side: change a run, wait for what becomes of it, and watch.

    async with zloom.connect() as operator:
        result = await operator.set("tiny-lm", {"learning_rate": 0.1})
        print(result.revision, result.outcomes)

`session`, `requests`, `subscriptions` and `effects` are pure; `link` gives them sockets and a clock.
"""

from zloom.client.blocking import SyncFeed, SyncOperator, connect_sync
from zloom.client.feeds import Feed
from zloom.client.operator import Observation, Operator, connect
from zloom.client.results import OperatorCounters, Result, Silence

__all__ = [
    "Feed",
    "Observation",
    "Operator",
    "OperatorCounters",
    "Result",
    "Silence",
    "SyncFeed",
    "SyncOperator",
    "connect",
    "connect_sync",
]
