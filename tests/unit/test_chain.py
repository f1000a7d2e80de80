"""The digest that binds a revision to all that came before it."""

from zloom.model import Revision
from zloom_broker.chain import DIGEST_SIZE, chained

REVISION = Revision(1, "config", {"learning_rate": 0.5}, at=1.0)


def test_it_depends_on_the_revision_and_on_what_came_before() -> None:
    digest = chained(REVISION, b"").chain
    assert len(digest) == DIGEST_SIZE
    assert chained(REVISION, b"other").chain != digest
    assert chained(Revision(1, "config", {"learning_rate": 0.25}, at=1.0), b"").chain != digest


def test_a_digest_is_over_everything_but_itself() -> None:
    once = chained(REVISION, b"before")
    assert chained(once, b"before") == once
