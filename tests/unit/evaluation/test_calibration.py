"""Confidence from scores, and what is promised of it."""

import random

import pytest

from streams.evaluation.calibration import (
    ENOUGH_OF_A_PRODUCT,
    Answer,
    Fitted,
    TooLittleShown,
    acting_confidence,
    acting_from,
    asking_confidence,
    calibrated,
    choosing_confidence,
    fit,
    halves,
    shown_by,
    weaker_half,
)
from streams.sightings.thresholds import Calibration, Thresholds, shipped


def answers(count: int, *, seed: int, wrong: float = 0.3, products: int = 20) -> list[Answer]:
    """Right ones score around 30 with a margin around 15, wrong ones around 15 and 3."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        product = f"product-{number % products}"
        is_right = chance.random() > wrong
        best = max(1.0, chance.gauss(30 if is_right else 15, 6))
        second = max(0.0, best - abs(chance.gauss(15 if is_right else 3, 3)))
        other = f"product-{(number + 1) % products}"
        ranked = ((product, best), (other, second)) if is_right else ((other, best), (product, second))
        made.append(Answer(f"{seed}-{number}.jpg", product, ranked, product))
    return made


def without_product(given: list[Answer]) -> list[Answer]:
    return [
        Answer(answer.file, None, tuple((name, score / 3) for name, score in answer.scores if name != answer.group), answer.group)
        for answer in given
    ]


def test_the_fit_is_the_likeliest() -> None:
    """At the maximum the confidences of all add up to the right ones, also weighted by score: the score equations."""
    given = answers(800, seed=1)
    model = fit(given)
    assert model.score > 0 and model.margin > 0
    errors = [answer.confidence(model) - answer.is_right for answer in given]
    assert abs(sum(errors)) < 0.5
    assert abs(sum(error * answer.scores[0][1] for error, answer in zip(errors, given, strict=True))) < 0.005 * 800 * 30


def test_confidence_means_what_it_says() -> None:
    """Where the odds are logistic, the coefficients they were made with are found."""
    chance = random.Random(2)
    true = Calibration(intercept=-5, score=0.2, margin=0.3)
    made = []
    for number in range(4000):
        best = chance.uniform(5, 40)
        second = best - min(chance.expovariate(0.2), best)
        right = chance.random() < true.confidence("a", best, second)
        made.append(Answer(f"{number}", "a" if right else "b", (("a", best), ("c", second)), "a"))
    model = fit(made)
    assert model.intercept == pytest.approx(true.intercept, abs=0.6)
    assert model.score == pytest.approx(true.score, abs=0.02)
    assert model.margin == pytest.approx(true.margin, abs=0.04)


def test_answers_that_never_overlap_still_have_finite_coefficients() -> None:
    apart = [Answer(f"{n}", "a", (("a", 50.0 + n),), "a") for n in range(10)]
    apart += [Answer(f"w{n}", "a", (("b", 5.0 + n),), "a") for n in range(10)]
    model = fit(apart)
    assert 0 < apart[10].confidence(model) < 0.5 < apart[0].confidence(model) < 1


def test_a_higher_score_never_counts_against_an_answer() -> None:
    backwards = [Answer(f"{n}", "a", (("a" if n < 20 else "b", float(n)), ("c", float(n) - (n % 7))), "a") for n in range(40)]
    model = fit(backwards)
    assert model.score >= 0 and model.margin >= 0


def test_it_takes_right_and_wrong_answers() -> None:
    with pytest.raises(ValueError, match="right answers and wrong ones"):
        fit([Answer("a", "a", (("a", 1.0),), "a")])
    with pytest.raises(ValueError, match="right answers and wrong ones"):
        fit([])


def test_no_candidate_is_no_confidence() -> None:
    assert Answer("a", "a", (), "a").confidence(Calibration(intercept=9, score=9, margin=9)) == 0


def test_only_products_with_enough_pictures_have_offsets_and_those_are_drawn_in() -> None:
    many = [Answer(f"m{n}", "hard", (("hard" if n % 4 == 0 else "sibling", 30.0), ("x", 20.0)), "hard") for n in range(200)]
    few = [Answer(f"f{n}", "rare", (("rare", 10.0 + n),), "rare") for n in range(ENOUGH_OF_A_PRODUCT - 1)]
    model = fit([*answers(400, seed=4), *many, *few], offsets=True)
    assert model.offsets["sibling"] < -0.5 < 0.5 < model.offsets["hard"] < 8
    assert "rare" not in model.offsets


def test_what_is_asked_about_is_worth_asking() -> None:
    given = answers(1000, seed=9)
    nothing = [Answer(f"n{n}", None, (("x", 4.0 + n % 5),), f"n{n}") for n in range(500)]
    model = fit([*given, *nothing])
    choice = choosing_confidence(given, model, 0.9)
    ask = asking_confidence([*given, *nothing], model, 0.9, choice, worthwhile=0.8, in_vain=1)
    asked = [answer for answer in [*given, *nothing] if ask <= answer.confidence(model) < 0.9 and len(answer.scores) > 1]
    assert 0 < choice < 0.9 and 0 < ask < 0.9
    assert sum(answer.product is not None for answer in asked) >= 0.8 * len(asked)
    useless = asking_confidence(nothing, model, 0.9, 0.0, worthwhile=0.8, in_vain=1)
    assert useless == 0.9, "nothing is asked where asking is of no use"


def test_pictures_of_nothing_are_seldom_asked_about() -> None:
    given = [Answer(f"{n}", "a", (("a", 20.0 - n % 20), ("b", 1.0)), "a") for n in range(200)]
    nothing = [Answer(f"n{n}", None, (("a", 10.0 - n % 20), ("b", 1.0)), "c") for n in range(200)]
    model = Calibration(intercept=-2, score=0.1, margin=0.1)
    for in_vain in (0.05, 0.2):
        ask = asking_confidence([*given, *nothing], model, 0.9, 0.5, worthwhile=0, in_vain=in_vain)
        assert sum(ask <= answer.confidence(model) for answer in nothing) == in_vain * 200


def test_another_confidence_to_act_from_moves_what_is_asked_and_promises_nothing() -> None:
    given = answers(1000, seed=9)
    nothing = [Answer(f"n{n}", None, (("x", 4.0 + n % 5),), f"n{n}") for n in range(500)]
    model = fit([*given, *nothing])
    for act in (0.6, 0.9):
        limits = acting_from(act, shipped(), "sift-9", model, [*given, *nothing])
        assert 0 <= limits.choice <= limits.ask < limits.act == act
        assert (limits.matcher, limits.calibration, limits.promise) == ("sift-9", model, None)
        assert (limits.views, limits.price_tag) == (shipped().views, shipped().price_tag)


def test_one_alone_is_asked_about_too() -> None:
    model = Calibration(intercept=-2, score=0.1, margin=0.01)
    for scores in ((("a", 20.0), ("b", 1.0)), (("a", 20.0),)):
        given = [Answer(f"{n}", "a", scores, "a") for n in range(10)]
        assert asking_confidence(given, model, 0.9, 0.4, worthwhile=0.5, in_vain=1) < 0.9
    assert asking_confidence([Answer("n", "a", (), "a")], model, 0.9, 0.4, worthwhile=0.5, in_vain=1) == 0.9


def test_thresholds_say_what_they_promise_and_on_how_many_pictures() -> None:
    first, second = halves([*answers(800, seed=10, wrong=0.1), *without_product(answers(800, seed=10, wrong=0.1))], "product")
    model = fit(first)
    found = acting_confidence(first, second, model, precision=0.9, unknown=0.95)
    made = calibrated(shipped(), "sift-9", Fitted(model, found, first), measured_on="what a test made up")
    assert made.promise is not None
    assert made.promise.precision_at_least >= 0.9 and made.promise.precision >= made.promise.precision_at_least
    assert made.promise.pictures + made.promise.unknown_pictures == len(second)
    assert made.matcher == "sift-9" and made.act == found.confidence and made.choice <= made.ask <= made.act
    assert made.views == shipped().views
    assert Thresholds.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("by", ["product", "picture"])
def test_halves_share_nothing(by: str) -> None:
    given = answers(301, seed=5)
    given += without_product(given)
    first, second = halves(given, by)  # type: ignore[arg-type]
    assert abs(len(first) - len(second)) <= (40 if by == "product" else 2)
    assert len(first) + len(second) == len(given)
    assert not {answer.file for answer in first} & {answer.file for answer in second}
    if by == "product":
        assert not {answer.group for answer in first} & {answer.group for answer in second}
    assert (first, second) == halves(given, by), "the same whenever it is asked"  # type: ignore[arg-type]


def test_what_is_promised_is_kept_by_pictures_never_seen() -> None:
    """Certainty 95 %: of 30 promises at most 5 are broken (with probability 0.997)."""
    broken = 0
    for seed in range(30):
        first, second = halves(answers(500, seed=100 + seed), "picture")
        model = fit(first)
        found = acting_confidence(first, second, model, precision=0.95, unknown=None)
        fresh = shown_by(answers(4000, seed=900 + seed), model, found.confidence)
        assert found.covered.rate is not None and found.covered.rate > 0.3
        broken += (fresh.right.rate or 0) < 0.95
    assert broken <= 5


def test_unknown_pictures_raise_the_confidence_to_act_from() -> None:
    known = answers(600, seed=6, wrong=0.1)
    hard = [Answer(f"u{n}", None, (("product-1", 20.0 + n % 12), ("product-2", 9.0)), f"other-{n}") for n in range(400)]
    first, second = halves([*known, *hard], "product")
    model = fit(first)
    relaxed = acting_confidence(first, second, model, precision=0.9, unknown=None)
    strict = acting_confidence(first, second, model, precision=0.9, unknown=0.98)
    assert strict.confidence > relaxed.confidence
    assert strict.unknown.at_least >= 0.98 > relaxed.unknown.at_least


def test_the_harder_half_is_what_is_promised() -> None:
    """One of the halves has siblings that are mistaken for each other where one of them is not in the catalogue."""
    known = answers(1200, seed=11, wrong=0.05)
    in_second = {answer.group for answer in halves(known, "product")[1]}
    missing = [
        Answer(
            one.file,
            None,
            tuple((name, score * (0.6 if one.group in in_second else 0.2)) for name, score in one.scores),
            one.group,
        )
        for one in known
    ]
    given = [*known, *missing]
    weaker = weaker_half(given, "product", precision=0.9, unknown=0.95)
    for half in halves(given, "product"):
        shown = shown_by(half, weaker.calibration, weaker.shown.confidence)
        assert shown.right.at_least >= 0.9 and shown.unknown.at_least >= 0.95


def test_too_few_pictures_promise_nothing() -> None:
    first, second = halves(answers(60, seed=7, wrong=0.1), "picture")
    model = fit(first)
    with pytest.raises(TooLittleShown, match="takes 299 pictures without an error"):
        acting_confidence(first, second, model, precision=0.99, unknown=None)


def test_what_is_missing_counts_the_errors_that_there_are() -> None:
    """Two of forty: 0.95 is what they are, and 124 pictures with as many errors would show it; with one more none would."""
    for wrong, needed in ((2, "It takes 124 pictures with no more than 2 of them wrong"), (3, "More pictures do not help")):
        held = [Answer(f"{n}", "a", (("a" if n >= wrong else "b", 30.0), ("c", 10.0)), "a") for n in range(40)]
        with pytest.raises(TooLittleShown, match=needed):
            acting_confidence(held, held, Calibration(intercept=0, score=0.1, margin=0.1), precision=0.95, unknown=None)


def test_a_matcher_that_guesses_promises_nothing() -> None:
    chance = random.Random(8)
    guessed = [
        Answer(f"{n}", "a", ((chance.choice("ab"), chance.uniform(10, 50)), ("c", chance.uniform(0, 10))), "a")
        for n in range(600)
    ]
    first, second = halves(guessed, "picture")
    with pytest.raises(TooLittleShown, match="cannot be promised"):
        acting_confidence(first, second, fit(first), precision=0.95, unknown=None)
    nothing = [Answer("n", "a", (), "a")]
    with pytest.raises(TooLittleShown, match="was answered at all"):
        acting_confidence(nothing, nothing, fit(first), precision=0.95, unknown=None)
