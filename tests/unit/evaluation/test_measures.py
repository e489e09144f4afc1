"""The arithmetic of how well products are recognised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.evaluation.measures import (
    Decision,
    Outcome,
    at_coverage,
    lower_bound,
    needed_for,
    percentile,
    precision_coverage,
    report,
)


def outcome(product: str | None, *ranked: str, confidence: float = 0.5, decision: Decision = "act", ms: float = 10) -> Outcome:
    """Where it is asked, the first two are offered."""
    return Outcome("picture.jpg", product, ranked, confidence, decision, ms, ranked[:2] if decision == "ask" else ())


def test_recall_counts_products_of_the_catalogue_and_unknown_counts_the_rest() -> None:
    shown = report(
        [
            outcome("a", "a", "b"),
            outcome("a", "b", "a", decision="ask"),
            outcome("a", "b", "c", "a", "d", "e", decision="ask"),
            outcome("a", "b", "c", "d", "e", "f", "a", decision="look_again"),
            outcome("a", decision="look_again", confidence=0),
            outcome(None, "a", decision="look_again"),
            outcome(None, "a", decision="act"),
        ]
    )
    assert (shown.recall_at_1.hits, shown.recall_at_1.of) == (1, 5)
    assert (shown.recall_at_5.hits, shown.recall_at_5.of) == (3, 5)
    assert (shown.unknown.hits, shown.unknown.of) == (1, 2)
    assert (shown.acted.hits, shown.acted.of) == (1, 2), "acting on a picture of no product is a wrong act"
    assert (shown.asked.hits, shown.asked.of) == (1, 2), "the third was not offered"
    assert shown.decisions == {"act": 2, "ask": 2, "look_again": 3}


def test_a_report_of_nothing_claims_nothing() -> None:
    shown = report([])
    assert shown.recall_at_1.rate is None and shown.curve == () and shown.ms_p50 is None
    assert str(shown.unknown) == "not measured" and shown.unknown.at_least == 0


def test_precision_at_coverage_takes_the_surest_first() -> None:
    outcomes = [outcome("a", "a" if number < 7 else "b", confidence=1 - number / 10) for number in range(10)]
    assert at_coverage(outcomes, 0.7).precision == 1
    assert at_coverage(outcomes, 0.8).precision == pytest.approx(7 / 8)
    assert at_coverage(outcomes, 1.0).precision == pytest.approx(0.7)
    assert at_coverage(outcomes, 0.7).confidence == pytest.approx(0.4)


def test_pictures_of_one_confidence_come_in_together() -> None:
    outcomes = [outcome("a", "a", confidence=0.9), *(outcome("a", right, confidence=0.5) for right in "aab")]
    assert [(point.pictures, point.right) for point in precision_coverage(outcomes)] == [(1, 1), (4, 3)]
    assert at_coverage(outcomes, 0.5).pictures == 4


@pytest.mark.parametrize(
    ("hits", "of", "bound"),
    [(0, 10, 0.0), (10, 10, 0.7411), (9, 10, 0.6058), (1, 10, 0.0051), (95, 100, 0.8977), (338, 338, 0.9912), (470, 500, 0.9195)],
)
def test_the_lower_bound_is_that_of_clopper_and_pearson(hits: int, of: int, bound: float) -> None:
    """Against the tables of the beta distribution: its 0.05 quantile for (hits, of - hits + 1)."""
    assert lower_bound(hits, of) == pytest.approx(bound, abs=2e-4)


@given(st.integers(1, 2000), st.data())
def test_the_lower_bound_is_below_what_was_seen_and_grows_with_it(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of - 1))
    assert 0 <= lower_bound(hits, of) <= hits / of
    assert lower_bound(hits, of) < lower_bound(hits + 1, of)


def test_more_hits_than_tries_are_refused() -> None:
    with pytest.raises(ValueError, match="more hits than tries"):
        lower_bound(3, 2)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.95, 0.98, 0.995])
@pytest.mark.parametrize("wrong", [0, 1, 7])
def test_so_many_tries_are_needed_and_no_fewer(rate: float, wrong: int) -> None:
    needed = needed_for(rate, wrong=wrong)
    assert lower_bound(needed - wrong, needed) >= rate > lower_bound(needed - 1 - wrong, needed - 1)


def test_percentiles_fall_between_neighbours() -> None:
    assert percentile([], 50) is None
    assert percentile([7.0], 95) == 7
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == pytest.approx(2.5)
    assert percentile([float(n) for n in range(101)], 95) == pytest.approx(95)


def test_the_document_has_rounded_numbers_and_no_picture() -> None:
    document = report([outcome("a", "a", confidence=1 / 3)]).document()
    assert document["recall_at_1"] == {"hits": 1, "of": 1, "rate": 1.0, "at_least": 0.05}
    assert "picture.jpg" not in str(document)


def test_of_few_pictures_each_coverage_that_there_is_comes_once() -> None:
    one = [Outcome("a.jpg", "milk", ("milk",), 0.9, "act", 1.0)]
    assert [point.coverage for point in report(one).curve] == [1.0]
    three = [Outcome(f"{n}.jpg", "milk", ("milk",), 0.9 - n / 10, "act", 1.0) for n in range(3)]
    assert [(point.pictures, point.right) for point in report(three).curve] == [(1, 1), (2, 2), (3, 3)]
