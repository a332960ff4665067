"""How sure a score is, and a difference of two models on the same rows."""

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1_000


def wilson_interval(count: int, examples: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson, 1927).

    Unlike the normal approximation it is never empty, nor outside of [0, 1], where none or all of
    a few rows count.
    """
    from scipy import stats

    interval = stats.binomtest(count, examples).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of a mean by the percentiles of 1,000 resamples of its rows.

    Of the differences of two models row by row, it is the paired bootstrap (Koehn, 2004).

    Args:
        values: Float [n].
        seed: Of the resamples.
    """
    random = np.random.default_rng(seed)
    means = [
        values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mcnemar(base: np.ndarray, tuned: np.ndarray) -> dict[str, float]:
    """Compares which of the same rows two models have right, by McNemar's exact test.

    Args:
        base: bool [n].
        tuned: bool [n].

    Returns:
        The rows `both_right`, `only_base`, `only_tuned` and `both_wrong`; and `p_value`, how
        probable so unequal counts of the two in the middle were for equally good models.
    """
    from scipy import stats

    only_base, only_tuned = int((base & ~tuned).sum()), int((tuned & ~base).sum())
    unequal = only_base + only_tuned
    return {
        "both_right": int((base & tuned).sum()),
        "only_base": only_base,
        "only_tuned": only_tuned,
        "both_wrong": int((~base & ~tuned).sum()),
        "p_value": float(stats.binomtest(only_base, unequal).pvalue) if unequal else 1.0,
    }
