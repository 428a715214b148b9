"""Scores of a student against its teacher, and their intervals. numpy only.

Percent means 100 x ratio. An undefined percent is NaN, and NaN goes through every aggregate: no task is dropped
silently.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

__all__ = [
    "GeometricMean",
    "arithmetic_mean",
    "bootstrap_interval",
    "first_reaching",
    "geometric_mean",
    "iqm",
    "mean_between",
    "percent_of_teacher",
    "random_normalised",
    "stratified_bootstrap",
]


class GeometricMean(NamedTuple):
    """`value` in percent; `floored` counts the entries that were raised to the floor."""

    value: float
    floored: int


def percent_of_teacher(score: ArrayLike, teacher: ArrayLike) -> Floats:
    """100 * score / teacher, element by element (Rusu et al. 2016, "% DQN").

    NaN where the teacher's score is <= 0 (an early Pong teacher at -15 would make -30 look like 200 %): use
    `random_normalised`.
    """
    score, teacher = _floats(score), _floats(teacher)
    return _ratio(100 * score, teacher)


def random_normalised(score: ArrayLike, random: ArrayLike, teacher: ArrayLike) -> Floats:
    """100 * (score - random) / (teacher - random): random policy 0, teacher 100. NaN unless teacher > random."""
    score, random, teacher = _floats(score), _floats(random), _floats(teacher)
    return _ratio(100 * (score - random), teacher - random)


def arithmetic_mean(percents: ArrayLike) -> float:
    """Mean over all entries. ValueError if there are none."""
    return float(_entries(percents).mean())


def geometric_mean(percents: ArrayLike, floor: float = 1.0) -> GeometricMean:
    """Geometric mean over tasks (Rusu et al. 2016; Fleming & Wallace 1986), with a rule for what it cannot take.

    The rule: entries below `floor` (default 1 %), zero and negative ones included, count as `floor`, and how many did
    is returned. So one dead task pulls a mean of ten down by 37 % instead of to 0 or NaN. ValueError if there are no
    entries or floor <= 0.
    """
    if not floor > 0:
        raise ValueError(f"the floor must be > 0 %, got {floor}")
    entries = _entries(percents)
    value = np.exp(np.log(np.maximum(entries, floor)).mean())  # np.maximum lets NaN through
    return GeometricMean(float(value), int((entries < floor).sum()))


def iqm(x: ArrayLike) -> float:
    """Interquartile mean of all entries together (Agarwal et al. 2021): without the lowest and the highest quarter.

    As `scipy.stats.trim_mean(x, 0.25)`, which rliable calls, floor(n / 4) whole entries go at each end: below four
    entries it is the plain mean. ValueError if there are no entries.
    """
    entries = np.sort(_entries(x))  # NaN last, so the first test is enough, but it could be cut off
    if np.isnan(entries[-1]):
        return float("nan")
    cut = entries.size // 4
    return float(entries[cut : entries.size - cut].mean())


def bootstrap_interval(
    x: ArrayLike,
    statistic: Callable[[Floats], float] = arithmetic_mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of a statistic of one sample (Efron 1979).

    (NaN, NaN) for a single entry: one observation shows no spread. ValueError if x is empty or confidence not in (0,
    1).
    """
    return stratified_bootstrap([x], lambda tasks: statistic(tasks[0]), confidence, resamples, seed)


def stratified_bootstrap(
    tasks: Sequence[ArrayLike],
    aggregate: Callable[[list[Floats]], float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval (low, high) of an aggregate over tasks (Agarwal et al. 2021, section 4.1).

    `tasks` holds one sample per task (episodes or runs; lengths may differ); each is resampled within itself, and
    `aggregate` turns the list of resampled arrays into one number, e.g. `lambda t: geometric_mean([x.mean() for x in
    t]).value`. (NaN, NaN) if any task has a single entry, for then its part of the spread is unknown. ValueError if
    there are no tasks, one is empty, or confidence not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if not tasks:
        raise ValueError("no tasks to resample")
    samples = [_entries(task) for task in tasks]
    if any(sample.size < 2 for sample in samples):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = [sample[rng.integers(sample.size, size=(resamples, sample.size))] for sample in samples]
    results = np.array([aggregate(list(row)) for row in zip(*drawn, strict=True)], dtype=np.float64)
    low, high = np.quantile(results, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def first_reaching(x: ArrayLike, y: ArrayLike, threshold: float) -> float:
    """First x, in the order given, whose y is at least `threshold`; NaN if there is none (NaN in y never is).

    With updates and % of teacher: how soon a student was good enough. ValueError if the lengths differ.
    """
    places, values = _floats(x).ravel(), _floats(y).ravel()
    if places.shape != values.shape:
        raise ValueError(f"{places.size} places and {values.size} values")
    there = np.flatnonzero(values >= threshold)
    return float(places[there[0]]) if there.size else float("nan")


def mean_between(x: ArrayLike, y: ArrayLike, begin: float, end: float) -> float:
    """Area under straight lines between points, from `begin` to `end`, over that length.

    In the units of y, so that curves of unequal lengths compare. x must not fall. NaN where the points do not go that
    far, where `end` is not after `begin`, and for NaN in y. ValueError if the lengths differ.
    """
    places, values = _floats(x).ravel(), _floats(y).ravel()
    if places.shape != values.shape:
        raise ValueError(f"{places.size} places and {values.size} values")
    if not places.size or not places[0] <= begin < end <= places[-1]:
        return float("nan")
    inside = (places > begin) & (places < end)
    at = np.concatenate([[begin], places[inside], [end]])
    return float(np.trapezoid(np.interp(at, places, values), at) / (end - begin))


def _floats(x: ArrayLike) -> Floats:
    return np.asarray(x, dtype=np.float64)


def _entries(x: ArrayLike) -> Floats:
    entries = _floats(x).ravel()
    if entries.size == 0:
        raise ValueError("no scores to aggregate")
    return entries


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator is <= 0."""
    return numerator / np.where(denominator > 0, denominator, np.nan)
