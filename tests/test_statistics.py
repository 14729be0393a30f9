"""Statistics over cases: coverage, other libraries, hand values, patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from voxplain.statistics import (
    benjamini_hochberg,
    bootstrap,
    compare,
    holm,
    ratio_intervals,
    summarize,
)


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_intervals_cover_the_mean_of_500_synthetic_studies(shape: str) -> None:
    """Between 92 and 97 % of the intervals of 95 %, for 40 cases each."""
    source, covered = np.random.default_rng(4), 0
    for study in range(500):
        values = source.normal(size=40) if shape == "normal" else source.gamma(4, 0.5, size=40) - 2
        interval = bootstrap(values, resamples=400, seed=study)
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.92 <= covered / 500 <= 0.97


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_intervals_equal_those_of_scipy(statistic: object) -> None:
    values = np.random.default_rng(1).gamma(2, size=30)
    mine = bootstrap(
        values,
        statistic=lambda sample: float(statistic(sample)),
        resamples=20_000,  # type: ignore[operator]
    )
    other = stats.bootstrap(
        (values,), statistic, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert mine == pytest.approx((other.low, other.high), rel=0.015)
    plain = stats.bootstrap(
        (values,), statistic, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    if statistic is np.mean:  # the correction is there: the skewed mean is not at the percentiles
        assert abs(plain.high - other.high) > 0.03
        assert abs(mine[1] - other.high) < abs(mine[1] - plain.high)  # type: ignore[index]


def test_ties_with_the_estimate_count_half() -> None:
    """Of five successes in twelve a quarter of all resamples give the estimate again."""
    values = np.repeat([1.0, 0.0], [5, 7])
    low, high = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap(values, resamples=20_000) == pytest.approx((low, high), abs=1e-9)


def test_bias_and_skew_are_corrected() -> None:
    """The variance of a sample is biased: its percentiles lie too low by half their width."""

    def biased(sample: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.var(sample, axis=axis)

    values = np.random.default_rng(1).gamma(2, size=20)
    mine = bootstrap(values, statistic=lambda sample: float(biased(sample)), resamples=20_000)
    asked = {"n_resamples": 20_000, "rng": np.random.default_rng(0)}
    other = stats.bootstrap((values,), biased, method="BCa", **asked).confidence_interval
    plain = stats.bootstrap((values,), biased, method="percentile", **asked).confidence_interval
    assert mine == pytest.approx((other.low, other.high), rel=0.02)
    assert abs(plain.low - other.low) > 0.1 * other.low
    assert abs(plain.high - other.high) > 0.1 * other.high


def test_images_of_one_patient_are_resampled_together() -> None:
    source = np.random.default_rng(2)
    levels = source.normal(size=10)
    values = np.repeat(levels, 8) + 1e-9 * source.normal(size=80)
    who = np.repeat([f"p{n}" for n in range(10)], 8)
    apart, together = bootstrap(values), bootstrap(values, who)
    patients = bootstrap(levels)
    assert apart is not None
    assert together == pytest.approx(patients, abs=1e-6)
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])  # type: ignore[index]
    paired = compare(values, np.zeros(80), patients=list(who))
    assert paired.interval == together
    assert summarize(values, list(who)).interval == together


def test_few_cases_have_no_interval() -> None:
    assert bootstrap(np.arange(7.0)) is None
    assert bootstrap(np.arange(8.0)) is not None
    who = np.repeat(["a", "b"], 10)
    assert bootstrap(np.arange(20.0), who) is None  # two patients, whatever the images


def test_intervals_are_reproducible() -> None:
    values = np.random.default_rng(3).normal(size=20)
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)


def test_equal_values_have_an_interval_of_one_point() -> None:
    """Where acceleration is undefined the percentiles stand in."""
    assert bootstrap(np.full(10, 0.3)) == pytest.approx((0.3, 0.3))


def test_summaries_count_what_is_undefined() -> None:
    found = summarize([1, 2, math.nan, 3, 4, math.nan])
    assert (found.mean, found.median, found.quartiles) == (2.5, 2.5, (1.75, 3.25))
    assert (found.count, found.undefined, found.interval) == (4, 2, None)
    nothing = summarize([math.nan, math.nan])
    assert math.isnan(nothing.mean)
    assert (nothing.count, nothing.undefined) == (0, 2)


def test_intervals_of_the_fewest_cases_are_a_little_short() -> None:
    """As the documentation says: with 8 cases they cover less than their name."""
    source, covered = np.random.default_rng(4), 0
    for study in range(300):
        interval = bootstrap(source.normal(size=8), resamples=400, seed=study)
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.82 <= covered / 300 <= 0.93


def test_adjusted_p_values_by_hand() -> None:
    values = [0.01, 0.04, 0.03, 0.005]
    assert holm(values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    adjusted = holm([0.01, math.nan, 0.02])
    assert math.isnan(adjusted[1])
    assert adjusted[0] == pytest.approx(0.02)  # two tests, not three
    assert adjusted[2] == pytest.approx(0.02)
    assert holm([]) == []


def test_comparisons_are_paired() -> None:
    source = np.random.default_rng(0)
    cases = source.normal(size=20) * 10
    found = compare(cases + 0.5 + 0.1 * source.normal(size=20), cases)
    assert found.difference == pytest.approx(0.5, abs=0.1)
    assert found.is_clear
    assert found.p < 1e-4
    assert found.count == 20
    nothing = compare(cases, cases + source.normal(size=20))
    assert nothing.p > 0.01
    assert not compare(cases, cases).is_clear
    assert math.isnan(compare(cases, cases).p)


def test_pairs_with_an_undefined_side_are_left_out() -> None:
    found = compare([1, 2, math.nan, 4], [0, math.nan, 0, 0])
    assert (found.difference, found.count) == (2.5, 2)
    assert found.interval is None
    assert math.isnan(found.p)


def test_a_patient_counts_once_in_the_test() -> None:
    """Ten images of each of seven patients are seven differences, not seventy."""
    gaps = 0.1 + np.random.default_rng(3).random(size=7)
    copies, who = np.repeat(gaps, 10), [f"p{n // 10}" for n in range(70)]
    once = compare(gaps, np.zeros(7))
    together = compare(copies, np.zeros(70), patients=who)
    assert together.p == once.p == pytest.approx(stats.wilcoxon(gaps).pvalue)
    assert compare(copies, np.zeros(70)).p < 0.01 < once.p
    assert together.difference == pytest.approx(once.difference)
    assert math.isnan(compare(copies[:50], np.zeros(50), patients=who[:50]).p)
    assert together.interval is None
    assert summarize(copies, who).patients == 7
    assert summarize([math.nan, *copies], ["q", *who]).patients == 7


def test_intervals_of_many_ratios_are_those_of_one_after_the_other() -> None:
    generator = np.random.default_rng(0)
    patients = [f"p{number // 2}" for number in range(20)]
    above, below = generator.random((20, 3)), 1 + generator.random((20, 3))
    found = ratio_intervals(above, below, patients)
    assert found is not None
    for column in range(3):
        index = np.arange(20, dtype=np.float64)

        def ratio(sample: np.ndarray, column: int = column) -> float:
            chosen = sample.astype(int)
            return float(above[chosen, column].sum() / below[chosen, column].sum())

        expected = bootstrap(index, np.array(patients), ratio)
        assert found[:, column] == pytest.approx(expected)
    assert ratio_intervals(above[:14], below[:14], patients[:14]) is None
    empty = ratio_intervals(above, below * [1, 0, 1], patients)
    assert empty is not None
    assert np.isnan(empty[:, 1]).all()
    assert np.isfinite(empty[:, [0, 2]]).all()


def test_false_discoveries_are_controlled_as_in_scipy() -> None:
    values = np.random.default_rng(0).random(50) ** 3
    expected = stats.false_discovery_control(values)
    assert benjamini_hochberg(values.tolist()) == pytest.approx(expected.tolist())
    adjusted = benjamini_hochberg([0.01, float("nan"), 0.5])
    assert adjusted[0] == pytest.approx(0.02)
    assert np.isnan(adjusted[1])
