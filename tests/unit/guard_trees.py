"""Hypothesis strategies for guards: trees as the parser makes them, and texts that look like guards."""

from hypothesis import strategies as st

from zloom_broker import guard_conditions as g

names = st.sampled_from(["loss", "val/loss", "acc@5", "within", "lr-AdamW", "it's", "a\\b", "ö"]) | st.text(
    max_size=6
)
_numbers = st.builds(
    g.Number, st.floats(0, allow_nan=False, allow_infinity=False) | st.integers(0, 9).map(float)
)


def _terms(leaves: st.SearchStrategy[g.Term]) -> st.SearchStrategy[g.Term]:
    def inside(terms: st.SearchStrategy[g.Term]) -> st.SearchStrategy[g.Term]:
        arithmetic = st.builds(g.Arithmetic, st.sampled_from("+-*/"), terms, terms)
        return arithmetic | st.builds(g.Negative, terms)

    return st.recursive(leaves, inside, max_leaves=4)


_claimed_terms = _terms(_numbers | st.builds(g.Metric, names))


def _claims(name: str) -> st.SearchStrategy[g.Condition]:
    """Return claims that may have a baseline, about one metric."""
    terms = _terms(_numbers | st.just(g.Baseline()) | st.just(g.Metric(name)))
    comparison = st.builds(g.Comparison, st.sampled_from(sorted(g.COMPARATORS)), terms, terms)
    return comparison | st.builds(g.NotFinite, terms)


_of_several = st.builds(g.Comparison, st.sampled_from(sorted(g.COMPARATORS)), _claimed_terms, _claimed_terms)
claims = (_of_several | names.flatmap(_claims)).filter(g.metrics)


def _joined(conditions: st.SearchStrategy[g.Condition]) -> st.SearchStrategy[g.Condition]:
    parts = st.lists(conditions, min_size=2, max_size=3).map(tuple)
    return st.builds(g.All, parts) | st.builds(g.Any, parts)


conditions = st.recursive(claims, _joined, max_leaves=4)
guards = st.builds(g.Guard, conditions, st.integers(1, 10**6))

_pieces = st.sampled_from(
    [
        *"()<>+-*/'\"\\. ",
        "<=",
        ">=",
        "loss",
        "2",
        "1e5",
        "and",
        "or",
        "is",
        "nan",
        "baseline",
        "within",
        "steps",
    ]
)
garbage = (
    st.text(max_size=400) | st.lists(_pieces, max_size=80).map(" ".join) | st.lists(_pieces).map("".join)
)
