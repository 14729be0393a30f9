"""Statistics over cases: intervals by bootstrap, paired comparisons, corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FEWEST = 8
"""Below so many patients the points are shown and no interval is given."""


@dataclass(frozen=True)
class Summary:
    """A metric over cases.

    Attributes:
        mean: Over the defined values.
        median: Likewise.
        quartiles: First and third.
        interval: 95 % bootstrap interval of the mean; None below 8 patients.
        count: Defined values.
        undefined: Values that are NaN.
        patients: Whose defined values they are.
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
        patients: Whose case it is; images of one patient are resampled together.
        seed: Of the resamples.
    """
    array = np.asarray(values, dtype=np.float64)
    known = np.isfinite(array)
    kept = array[known]
    if not len(kept):
        nan = float("nan")
        return Summary(nan, nan, (nan, nan), None, 0, int((~known).sum()), 0)
    who = _whose(patients, known)
    low, high = np.quantile(kept, [0.25, 0.75])
    return Summary(
        mean=float(kept.mean()),
        median=float(np.median(kept)),
        quartiles=(float(low), float(high)),
        interval=bootstrap(kept, who, seed=seed),
        count=len(kept),
        undefined=int((~known).sum()),
        patients=len(set(who.tolist())),
    )


def _whose(patients: Sequence[str], known: NDArray[np.bool_]) -> NDArray[np.str_]:
    """The patient of every defined value; every case is one of its own where none is named."""
    return np.asarray(patients or [str(n) for n in range(len(known))])[known]


def mean(sample: Array) -> float:
    """The plain mean."""
    return float(sample.mean())


def bootstrap(
    values: Array,
    patients: NDArray[np.str_] | None = None,
    statistic: Callable[[Array], float] = mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """A BCa interval over patients; percentile where its acceleration is undefined.

    Efron, Better bootstrap confidence intervals, 1987. On synthetic studies of 40 cases 93 to 94 %
    of the 95 % intervals covered the mean; of 8 cases, 87 to 88 %.

    Returns:
        None below 8 patients.
    """
    groups = _groups(values, np.arange(len(values)).astype(str) if patients is None else patients)
    if len(groups) < FEWEST:
        return None
    source = np.random.default_rng(seed)
    picks = source.integers(0, len(groups), size=(resamples, len(groups)))
    draws = _draws(groups, picks, statistic)
    whole = statistic(np.concatenate(groups))
    tails = _tails(draws, whole, _left_out(groups, statistic), level)
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def _groups(values: Array, patients: NDArray[np.str_]) -> list[Array]:
    """The values of each patient."""
    return [values[patients == name] for name in dict.fromkeys(patients.tolist())]


def _draws(
    groups: list[Array], picks: NDArray[np.int64], statistic: Callable[[Array], float]
) -> Array:
    """The statistic of every resample; means by sums of whole groups."""
    if statistic is mean:
        sums = np.array([group.sum() for group in groups])
        sizes = np.array([len(group) for group in groups])
        return np.asarray(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1))
    return np.array([statistic(np.concatenate([groups[i] for i in row])) for row in picks])


def _left_out(groups: list[Array], statistic: Callable[[Array], float]) -> Array:
    """The statistic without each group in turn."""
    return np.array(
        [
            statistic(np.concatenate([part for at, part in enumerate(groups) if at != left]))
            for left in range(len(groups))
        ]
    )


def _tails(draws: Array, whole: float, jackknife: Array, level: float) -> tuple[float, float]:
    """The quantiles of the resamples that bound the interval."""
    plain = ((1 - level) / 2, (1 + level) / 2)
    below = float((draws < whole).mean() + (draws == whole).mean() / 2)
    spread = jackknife.mean() - jackknife
    scale = float((spread**2).sum()) ** 1.5
    if scale == 0 or not 0 < below < 1:
        return plain
    bias, acceleration = stats.norm.ppf(below), float((spread**3).sum()) / (6 * scale)
    shifted = [bias + stats.norm.ppf(tail) for tail in plain]
    tails = [stats.norm.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    return (float(tails[0]), float(tails[1])) if all(map(math.isfinite, tails)) else plain


@dataclass(frozen=True)
class Comparison:
    """Two maps on the same cases.

    Attributes:
        difference: Mean of the paired differences, first minus second.
        interval: 95 % bootstrap interval; None below 8 patients.
        p: Wilcoxon signed-rank over the mean differences of patients, two-sided; NaN below 6
            patients or without differences.
        count: Pairs with both values defined.
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
    """Paired differences of two maps over the same cases.

    Args:
        first: One value per case; NaN where undefined.
        second: Of the other map, in the same order.
        seed: Of the resamples.
        patients: Whose case it is; images of one patient are resampled together, and count once
            in the test.
    """
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    known = np.isfinite(gaps)
    who, gaps = _whose(patients, known), gaps[known]
    if not len(gaps):
        return Comparison(float("nan"), None, float("nan"), 0)
    own = np.array([group.mean() for group in _groups(gaps, who)])
    testable = len(own) >= 6 and bool(np.any(own != 0))
    p = float(stats.wilcoxon(own).pvalue) if testable else float("nan")
    return Comparison(float(gaps.mean()), bootstrap(gaps, who, seed=seed), p, len(gaps))


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm, 1979); NaN stay and do not count."""
    return _stepped(values, lambda count, rank: count - rank, np.maximum.accumulate)


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """Adjusted p values for the false discovery rate (Benjamini and Hochberg, 1995)."""
    found = np.asarray(values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(found))
    order = known[np.argsort(found[known])[::-1]]
    count = len(order)
    scaled = [found[at] * count / (count - place) for place, at in enumerate(order)]
    result = found.copy()
    result[order] = np.minimum(np.minimum.accumulate(scaled), 1.0) if count else []
    return [float(value) for value in result]


def _stepped(
    values: Sequence[float],
    factor: Callable[[int, int], int],
    keep: Callable[[Array], Array],
) -> list[float]:
    found = np.asarray(values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(found))
    order = known[np.argsort(found[known])]
    scaled = np.array([found[at] * factor(len(order), place) for place, at in enumerate(order)])
    result = found.copy()
    if len(order):
        result[order] = np.minimum(keep(scaled), 1.0)
    return [float(value) for value in result]
