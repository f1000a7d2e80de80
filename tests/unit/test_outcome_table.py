"""Which outcomes are sent when, and again when."""

from zloom.model import Outcome
from zloom.outcome_table import BATCH, OutcomeTable

ONE, OTHER = Outcome("a", outcome="applied", step=1), Outcome("a", outcome="rejected")


def table_of(count: int) -> OutcomeTable:
    """Return a table with so many outcomes that are to be sent."""
    table = OutcomeTable()
    for number in range(1, count + 1):
        table.add(number, ONE, 0.0)
    return table


def test_each_is_sent_once_and_again_when_it_is_late() -> None:
    table = table_of(2)
    assert table.due(0.0, 3.0) == {1: ONE, 2: ONE}
    assert (table.due(2.9, 5.9), table.next_due(), table.resent) == ({}, 3.0, 0)
    assert (table.due(3.0, 6.0), table.next_due(), table.resent) == ({1: ONE, 2: ONE}, 6.0, 2)


def test_a_message_takes_so_many_and_the_next_one_the_rest() -> None:
    table = table_of(BATCH + 1)
    assert list(table.due(0.0, 3.0)) == list(range(1, BATCH + 1))
    assert list(table.due(0.0, 3.0)) == [BATCH + 1]


def test_what_is_new_goes_with_what_is_late() -> None:
    table = table_of(1)
    table.due(0.0, 3.0)
    table.add(2, OTHER, 3.5)
    assert table.due(3.5, 6.5) == {2: OTHER, 1: ONE}


def test_one_that_is_answered_anew_is_sent_anew_and_once() -> None:
    table = table_of(1)
    table.due(0.0, 3.0)
    table.add(1, OTHER, 1.0)
    assert (len(table), table.due(1.0, 4.0), table.due(3.0, 6.0)) == (1, {1: OTHER}, {})


def test_one_that_is_sent_by_itself_is_late_like_all_others_and_takes_the_place_of_an_earlier() -> None:
    table = table_of(1)
    table.due(0.0, 3.0)
    assert (table.send(2, ONE, 4.0), table.send(1, OTHER, 5.0)) == ({2: ONE}, {1: OTHER})
    assert (len(table), table.has_new, table.next_due()) == (2, False, 4.0)
    assert (table.due(5.0, 8.0), table.resent) == ({2: ONE, 1: OTHER}, 2)


def test_when_the_beat_becomes_shorter_what_was_sent_before_is_due_as_soon() -> None:
    table = table_of(2)
    table.due(0.0, 30.0)
    table.send(3, OTHER, 7.0)
    assert (table.next_due(), list(table.due(7.5, 14.0))) == (7.0, [1, 2, 3])
    table.add(4, ONE, 8.0)
    table.due(8.0, 9.0)
    assert (table.next_due(), list(table.due(9.0, 15.0))) == (9.0, [1, 2, 3, 4])


def test_what_is_acknowledged_is_sent_no_more_but_to_another_life_of_the_broker() -> None:
    table = table_of(2)
    table.due(0.0, 3.0)
    table.acknowledge([1, 7])
    assert (len(table), table.due(3.0, 6.0)) == (1, {2: ONE})
    table.doubt()
    assert table.due(4.0, 7.0) == {1: ONE}


def test_on_a_new_connection_all_are_due_in_the_order_in_which_they_were_made() -> None:
    table = table_of(1)
    table.due(0.0, 3.0)
    table.add(2, ONE, 0.5)
    table.restart(1.0)
    assert (table.next_due(), list(table.due(1.0, 4.0))) == (1.0, [1, 2])


def test_of_another_history_nothing_is_left() -> None:
    table = table_of(2)
    table.due(0.0, 3.0)
    table.acknowledge([1])
    table.clear()
    table.doubt()
    assert (len(table), table.next_due(), table.due(9.0, 12.0)) == (0, None, {})
