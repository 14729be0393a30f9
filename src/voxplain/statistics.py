"""Statistics over cases: bootstrap intervals, paired comparisons, adjusted p values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FEWEST = 8
"""Fewest patients for which an interval is given."""


@dataclass(frozen=True)
class Summary:
    """A metric over cases.

    Attributes:
        mean: Mean of the defined values.
        median: Median of the defined values.
        quartiles: First and third quartile.
        interval: 95 % bootstrap interval of the mean; None below 8 patients.
        count: Number of defined values.
        undefined: Number of values that are NaN.
        patients: Number of patients with a defined value.
    """

    mean: float
    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None
    count: int
    undefined: int
    patients: int


def summarize(values: Sequence[float], patients: Sequence[str] = (), seed: int = 0) -> Summary:
    """Mean, median and interval of a metric over cases.

    Args:
        values: One per case; NaN where undefined.
        patients: The patient of each case, whose images are resampled together; each case is a
            patient of its own if empty.
        seed: Seed of the resamples.
    """
    array = np.asarray(values, dtype=np.float64)
    is_defined = np.isfinite(array)
    defined, undefined = array[is_defined], int((~is_defined).sum())
    if not len(defined):
        nan = float("nan")
        return Summary(nan, nan, (nan, nan), None, 0, undefined, 0)
    groups = _patients(patients, is_defined)
    low, high = np.quantile(defined, [0.25, 0.75])
    return Summary(
        mean=float(defined.mean()),
        median=float(np.median(defined)),
        quartiles=(float(low), float(high)),
        interval=bootstrap(defined, groups, seed=seed),
        count=len(defined),
        undefined=undefined,
        patients=len(set(groups.tolist())),
    )


def _patients(patients: Sequence[str], is_defined: NDArray[np.bool_]) -> NDArray[np.str_]:
    """The patient of every defined value."""
    return np.asarray(patients or [str(n) for n in range(len(is_defined))])[is_defined]


def mean(sample: Array) -> float:
    """The arithmetic mean."""
    return float(sample.mean())


def bootstrap(
    values: Array,
    patients: NDArray[np.str_] | None = None,
    statistic: Callable[[Array], float] = mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """BCa bootstrap interval of a statistic, resampling patients.

    It is the percentile interval where the acceleration is undefined. Of the 95 % intervals of
    synthetic studies 93 to 94 % covered the mean with 40 cases, 87 to 88 % with 8 cases.

    Paper: Efron, Better bootstrap confidence intervals, 1987.

    Args:
        values: ``(cases,)``.
        patients: The patient of each case; each case is a patient of its own if None.
        statistic: Computed on the values of each resample.
        level: Nominal coverage.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Lower and upper end; None below 8 patients.
    """
    groups = _groups(values, np.arange(len(values)).astype(str) if patients is None else patients)
    if len(groups) < FEWEST:
        return None
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(groups), size=(resamples, len(groups)))
    resampled = _resampled(groups, picks, statistic)
    estimate = statistic(np.concatenate(groups))
    tails = _tails(resampled, estimate, _jackknife(groups, statistic), level)
    low, high = np.quantile(resampled, tails)
    return float(low), float(high)


def _groups(values: Array, patients: NDArray[np.str_]) -> list[Array]:
    """The values of each patient."""
    return [values[patients == name] for name in dict.fromkeys(patients.tolist())]


def _resampled(
    groups: list[Array], picks: NDArray[np.int64], statistic: Callable[[Array], float]
) -> Array:
    """The statistic of every resample, ``(resamples,)``; the mean is taken from sums of groups."""
    if statistic is mean:
        sums = np.array([group.sum() for group in groups])
        sizes = np.array([len(group) for group in groups])
        return np.asarray(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1))
    return np.array([statistic(np.concatenate([groups[i] for i in row])) for row in picks])


def _jackknife(groups: list[Array], statistic: Callable[[Array], float]) -> Array:
    """The statistic without each group in turn, ``(groups,)``."""
    return np.array(
        [
            statistic(np.concatenate([*groups[:left_out], *groups[left_out + 1 :]]))
            for left_out in range(len(groups))
        ]
    )


def _tails(
    resampled: Array, estimate: float, jackknife: Array, level: float
) -> tuple[float, float]:
    """The quantiles of the resamples at which the interval ends."""
    percentile = ((1 - level) / 2, (1 + level) / 2)
    below = float((resampled < estimate).mean() + (resampled == estimate).mean() / 2)
    deviations = jackknife.mean() - jackknife
    scale = float((deviations**2).sum()) ** 1.5
    if scale == 0 or not 0 < below < 1:
        return percentile
    bias, acceleration = stats.norm.ppf(below), float((deviations**3).sum()) / (6 * scale)
    shifted = [bias + stats.norm.ppf(tail) for tail in percentile]
    tails = [stats.norm.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    return (float(tails[0]), float(tails[1])) if all(map(math.isfinite, tails)) else percentile


@dataclass(frozen=True)
class Comparison:
    """A metric of two maps, compared over the same cases.

    Attributes:
        difference: Mean of the paired differences, first minus second.
        interval: 95 % bootstrap interval of the difference; None below 8 patients.
        p: Two-sided p value of the Wilcoxon signed-rank test over the mean differences of the
            patients; NaN below 6 patients, or if all differences are 0.
        count: Number of pairs with both values defined.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def compare(
    first: Sequence[float],
    second: Sequence[float],
    seed: int = 0,
    patients: Sequence[str] = (),
) -> Comparison:
    """Paired differences of a metric of two maps over the same cases.

    Args:
        first: Values of the first map, one per case; NaN where undefined.
        second: Values of the second map, in the same order.
        seed: Seed of the resamples.
        patients: The patient of each case; images of one patient are resampled together, and
            count once in the test. Each case is a patient of its own if empty.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    is_defined = np.isfinite(differences)
    groups, differences = _patients(patients, is_defined), differences[is_defined]
    if not len(differences):
        return Comparison(float("nan"), None, float("nan"), 0)
    per_patient = np.array([group.mean() for group in _groups(differences, groups)])
    is_testable = len(per_patient) >= 6 and bool(np.any(per_patient != 0))
    p = float(stats.wilcoxon(per_patient).pvalue) if is_testable else float("nan")
    interval = bootstrap(differences, groups, seed=seed)
    return Comparison(float(differences.mean()), interval, p, len(differences))


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm, 1979); NaN stay and do not count."""
    p_values = np.array(values, dtype=np.float64)
    defined = np.flatnonzero(np.isfinite(p_values))
    order = defined[np.argsort(p_values[defined])]
    factors = np.arange(len(order), 0, -1)
    p_values[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return [float(value) for value in p_values]


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """Adjusted p values for the false discovery rate (1995); NaN stay and do not count."""
    p_values = np.array(values, dtype=np.float64)
    defined = np.flatnonzero(np.isfinite(p_values))
    if len(defined):
        p_values[defined] = stats.false_discovery_control(p_values[defined])
    return [float(value) for value in p_values]
