"""bench.ingest: what counts, and that a trainer keeps all that it reports in a turn."""

from bench import ingest
from bench.ingest_source import METRICS
from zloom.messages import Reported
from zloom.metrics import POINTS_KEPT
from zloom.model import ReplicaStatus
from zloom.series import Series


def test_the_points_of_all_metrics_count_and_nothing_else_does() -> None:
    status = ReplicaStatus("r", "run", "one")
    metrics = {"loss": Series.of([1, 2, 3], [0.1, 0.2, 0.3]), "accuracy": Series.of([3], [0.9])}

    assert ingest.counted(Reported(seq=1, status=status, metrics=metrics)) == 4
    assert ingest.counted("anything else") == 0


def test_a_turn_fits_into_what_a_weavelet_keeps_and_is_whole_steps() -> None:
    for points in (ingest.POINTS, ingest.QUICK_POINTS):
        assert points[ingest.ZLOOM] <= POINTS_KEPT
        assert not [each for each in points.values() if each % len(METRICS)]
