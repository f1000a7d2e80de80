"""bench.journal: the part that needs no broker."""

from pathlib import Path

from bench import journal
from bench.collected import Collected
from bench.extent import Extent
from zloom_broker.journal import open_journal


def test_rows_are_timed_one_by_one_and_together_and_all_of_them_are_in_the_journal(tmp_path: Path) -> None:
    collected = Collected(journal.NAME)

    journal._commit(Extent(1, True, False, tmp_path, print), collected)

    singles, group = collected.figures()
    assert (singles.contender, group.contender) == (journal.SINGLE, journal.GROUP)
    assert 0 < singles.rounds[0] < group.rounds[0]
    (folder,) = tmp_path.iterdir()
    with open_journal(folder) as reopened:
        assert reopened.recovered.last_seq == journal.QUICK_SINGLES + journal.QUICK_BURST_SIZE
