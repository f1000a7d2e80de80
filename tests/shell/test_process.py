"""A weavelet in a process of its own, which fills a queue."""

import multiprocessing
from pathlib import Path
from typing import Annotated

import pytest

from tests.shell.test_weavelet import broker_thread, until_declared
from tests.support import free_endpoint
from zloom import DeclarationError, Meta, QueueKey, SettingsError, weavelet_process
from zloom.client import connect_sync
from zloom.messages import Happened

KEYS = [QueueKey("learning_rate", 0.1, Annotated[float, Meta(gt=0)], "the base rate"), QueueKey("count", 1)]


def test_values_go_on_the_queue_and_a_pause_is_refused(tmp_path: Path) -> None:
    queue = multiprocessing.get_context("spawn").Queue()
    with (
        free_endpoint("ipc") as endpoint,
        broker_thread(tmp_path, endpoint),
        connect_sync(endpoint) as operator,
        operator.watch("old") as feed,
    ):
        with weavelet_process(queue, run="old", keys=KEYS, broker=endpoint, attempt="one") as weavelet:
            next(each for each in feed if isinstance(each, Happened) and each.event.kind == "joined")
            until_declared(operator, "old", "learning_rate", "count")
            weavelet.tick()
            weavelet.tick(41)
            weavelet.tick()
            result = operator.set("old", {"count": 2, "learning_rate": 0.5})
            assert [(each.outcome, each.step) for each in result.outcomes] == [("applied", 42)]
            assert [queue.get(timeout=5), queue.get(timeout=5)] == [("learning_rate", 0.5), ("count", 2)]
            paused = operator.pause("old")
            assert [each.outcome for each in paused.outcomes] == ["rejected"]
            assert "cannot hold the trainer's" in paused.outcomes[0].error
            weavelet.close("enough")
            weavelet.close("again")
        finished = next(each for each in feed if isinstance(each, Happened) and each.event.kind == "finished")
    assert "enough" in finished.event.text
    assert not multiprocessing.active_children()
    queue.close()
    queue.join_thread()


def test_what_cannot_work_is_refused_where_it_was_written() -> None:
    queue = multiprocessing.get_context("spawn").Queue()
    with pytest.raises(DeclarationError, match="its baseline does not fit its type"):
        weavelet_process(queue, run="old", keys=[QueueKey("rate", -1.0, Annotated[float, Meta(gt=0)])])
    with pytest.raises(SettingsError, match="broker is 'head'"):
        weavelet_process(queue, run="old", keys=[], broker="head")
    queue.close()
