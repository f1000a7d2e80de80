"""What did not come is counted, by the sequence numbers of what did."""

from zloom.gaps import MAX_PLACES, Gaps, PublishSeqs
from zloom.messages import Beat, Echo, Happened, Own, Published
from zloom.model import Event


def happened(seq: int) -> Happened:
    return Happened(seq=seq, event=Event("joined", "lm"))


def own(sender: str, seq: int) -> Own:
    return Own(topic="net/a", payload=b"", sender=sender, sender_seq=seq)


def missed(*messages: tuple[bytes, Published]) -> int:
    gaps = Gaps()
    return sum(gaps.see(topic, message) for topic, message in messages)


def test_the_first_message_of_a_topic_begins_its_count() -> None:
    assert missed((b"watch/a/", happened(40)), (b"watch/a/", happened(41))) == 0


def test_a_gap_is_what_is_missing_in_between() -> None:
    assert missed((b"watch/a/", happened(1)), (b"watch/a/", happened(5))) == 3


def test_topics_count_apart() -> None:
    assert missed((b"watch/a/", happened(1)), (b"watch/b/", happened(7)), (b"watch/a/", happened(2))) == 0


def test_own_topics_count_for_each_sender() -> None:
    assert missed((b"own/net/a", own("x", 1)), (b"own/net/a", own("y", 9)), (b"own/net/a", own("x", 3))) == 1


def test_beats_count_and_echoes_have_no_number() -> None:
    assert missed((b"beat/", Beat(seq=1, epoch="e")), (b"beat/", Beat(seq=9, epoch="e"))) == 7
    assert missed((b"echo/n", Echo(nonce="n")), (b"echo/n", Echo(nonce="n"))) == 0


def test_another_life_of_the_broker_is_no_gap() -> None:
    gaps = Gaps()
    gaps.see(b"watch/a/", happened(3))
    gaps.restart()
    assert gaps.see(b"watch/a/", happened(9)) == 0


def test_topics_that_a_step_is_part_of_fill_no_memory() -> None:
    gaps = Gaps()
    for step in range(MAX_PLACES + 1):
        gaps.see(f"own/{step}".encode(), happened(1))
        gaps.see(b"watch/a/", happened(step + 1))  # what comes again and again is not forgotten
    assert gaps.see(b"watch/a/", happened(MAX_PLACES + 4)) == 2
    assert gaps.see(b"own/0", happened(9)) == 0


def test_what_a_peer_publishes_is_numbered_by_topic_and_the_oldest_are_forgotten() -> None:
    seqs = PublishSeqs()
    assert [seqs.next("a"), seqs.next("b"), seqs.next("a")] == [1, 1, 2]
    for number in range(MAX_PLACES - 1):
        seqs.next(f"topic {number}")
    assert (seqs.next("a"), seqs.next("b")) == (3, 1)
