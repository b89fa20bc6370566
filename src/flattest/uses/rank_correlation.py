r"""How well one quantity ranks networks by another: overall, all else being equal, and beyond that.

Three coefficients for pairs of networks :math:`(i, j)`, a measure :math:`\mu` and the gap
:math:`g`. Kendall's tau-b over all pairs,

.. math::
    \tau = \frac{\sum_{i<j} \operatorname{sgn}(\mu_i - \mu_j) \operatorname{sgn}(g_i - g_j)}
    {\sqrt{\#\{i<j: \mu_i \ne \mu_j\} \, \#\{i<j: g_i \ne g_j\}}};

the granulated coefficient :math:`\Psi`, the mean over axes of the mean of the same products over
pairs that differ in this axis only; and the least share, over all sets of at most two
hyper-parameters, of the information in the sign of :math:`g_i - g_j` that the sign of
:math:`\mu_i - \mu_j` has when those hyper-parameters are known and equal.

References
----------
Y. Jiang, B. Neyshabur, H. Mobahi, D. Krishnan, S. Bengio, "Fantastic Generalization Measures and
Where to Find Them", ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

N_PERMUTATIONS = 99


def overall(records: pd.DataFrame, measure: str, target: str = "gap") -> Callable[[ndarray], float]:
    """Return Kendall's tau as a function of the trajectories that are taken.

    Parameters
    ----------
    records : DataFrame
        One row per network, with its trajectory in `seed`.
    measure, target : str
        The columns that are compared.

    Returns
    -------
    callable
        From an array of trajectories, in which some may appear several times, to tau-b over all
        their networks. It is what a bootstrap over trajectories takes: networks of one trajectory
        share data and levels, and are not independent.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from flattest.uses.rank_correlation import overall
    >>> rows = pd.DataFrame({"seed": [0, 0, 1], "norm": [1, 2, 3], "gap": [0.1, 0.3, 0.2]})
    >>> round(overall(rows, "norm")(np.array([0, 1])), 3)
    0.333
    """
    x, y = _signs(records[measure]), _signs(records[target])
    names, inverse = np.unique(records["seed"].to_numpy(), return_inverse=True)
    # Sums over pairs of networks, by pairs of trajectories: all that any resample needs.
    belongs = np.eye(len(names))[inverse]
    concordant, of_x, of_y = (belongs.T @ pairs @ belongs for pairs in (x * y, x * x, y * y))

    def tau(chosen: ndarray) -> float:
        times = (np.asarray(chosen)[:, None] == names).sum(0)
        return _ratio(*(times @ sums @ times for sums in (concordant, of_x, of_y)))

    return tau


def within_axes(
    records: pd.DataFrame, measure: str, target: str = "gap"
) -> Callable[[ndarray], float]:
    """Return the granulated coefficient as a function of the trajectories that are taken.

    Parameters
    ----------
    records : DataFrame
        One row per network, with `seed`, its `position` on the trajectory, and the factor `turned`
        since the position before.
    measure, target : str
        The columns that are compared.

    Returns
    -------
    callable
        From an array of trajectories to the mean over axes.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from flattest.uses.rank_correlation import within_axes
    >>> rows = pd.DataFrame({"seed": 0, "position": [0, 1, 2], "turned": ["", "width", "depth"]})
    >>> rows = rows.assign(norm=[1, 2, 3], gap=[0.1, 0.3, 0.2])
    >>> within_axes(rows, "norm")(np.array([0]))
    0.0
    """
    pairs = _neighbours(records, measure, target)
    by_both = pairs.groupby(["seed", "turned"])["product"].agg(["sum", "count"])
    sums, counts = (by_both[name].unstack(fill_value=0) for name in ("sum", "count"))
    names, of_pairs, numbers = sums.index.to_numpy(), sums.to_numpy(), counts.to_numpy()

    def psi(chosen: ndarray) -> float:
        times = (np.asarray(chosen)[:, None] == names).sum(0)
        total = times @ numbers
        some = total > 0
        return float(((times @ of_pairs)[some] / total[some]).mean()) if some.any() else math.nan

    return psi


def by_axis(records: pd.DataFrame, measure: str, target: str = "gap") -> pd.Series:
    """Return the share of agreement less that of disagreement, axis by axis.

    Parameters
    ----------
    records : DataFrame
        As for `within_axes`.
    measure, target : str
        The columns that are compared.

    Returns
    -------
    Series
        Between -1 and 1, by the name of the factor.
    """
    return _neighbours(records, measure, target).groupby("turned")["product"].mean()


def conditional_information(
    records: pd.DataFrame, measure: str, factors: Sequence[str], target: str = "gap"
) -> tuple[float, float]:
    """Return the least normalised conditional information, and what chance reaches.

    Parameters
    ----------
    records : DataFrame
        One row per network, with its factors.
    measure, target : str
        The columns that are compared.
    factors : sequence of str
        The hyper-parameters; sets of none, one and two are conditioned on.

    Returns
    -------
    least : float
        Between 0 and 1: the share of what the sign of a difference of gaps holds that the measure
        tells, in the set of hyper-parameters where it tells least.
    chance : float
        The value that only one in twenty permutations of the gaps exceeds. Information that is
        estimated from few pairs is never zero.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.uses.rank_correlation import conditional_information
    >>> rows = pd.DataFrame({"norm": range(9), "gap": range(9), "width": [0, 1, 2] * 3})
    >>> least, chance = conditional_information(rows, "norm", ["width"])
    >>> round(least, 9), chance < 0.9
    (1.0, True)
    """
    groups = _groups(records, factors)
    first, second = np.triu_indices(len(records), 1)
    x = _signs(records[measure])[first, second]
    found = _least(x, _signs(records[target])[first, second], groups)
    rng = np.random.default_rng(0)
    values = records[target].to_numpy()
    drawn = [
        _least(x, _signs(pd.Series(rng.permutation(values)))[first, second], groups)
        for _ in range(N_PERMUTATIONS)
    ]
    return found, float(np.quantile(drawn, 0.95, method="higher"))


def _signs(values: pd.Series) -> Float[ndarray, "n n"]:
    """Return the signs of all differences; NaN compares as equal to everything."""
    numbers = values.to_numpy(dtype=float)
    return np.nan_to_num(np.sign(numbers[:, None] - numbers[None, :]))


def _ratio(products: float, of_x: float, of_y: float) -> float:
    return float(products / math.sqrt(of_x * of_y)) if of_x and of_y else math.nan


def _neighbours(records: pd.DataFrame, measure: str, target: str) -> pd.DataFrame:
    """Return one row per pair of neighbours: seed, factor turned, product of the signs."""
    ordered = records.sort_values(["seed", "position"])
    steps = ordered.groupby("seed")["position"].diff()
    changes = [np.sign(ordered.groupby("seed")[name].diff()) for name in (measure, target)]
    pairs = ordered[["seed", "turned"]].assign(product=changes[0] * changes[1])
    return pairs[(steps == 1) & pairs["product"].notna()]


def _groups(records: pd.DataFrame, factors: Sequence[str]) -> list[Int[ndarray, " p"]]:
    """Return, for each set, the number of the levels that a pair shares; -1 where they differ."""
    first, second = np.triu_indices(len(records), 1)
    groups = []
    for size in range(3):
        for chosen in combinations(factors, size):
            levels = (
                records.groupby(list(chosen)).ngroup().to_numpy()
                if chosen
                else np.zeros(len(records), dtype=int)
            )
            groups.append(np.where(levels[first] == levels[second], levels[first], -1))
    return groups


def _least(
    x: Float[ndarray, " p"], y: Float[ndarray, " p"], groups: list[Int[ndarray, " p"]]
) -> float:
    shares = [_share(x, y, group) for group in groups]
    known = [share for share in shares if not math.isnan(share)]
    return min(known) if known else math.nan


def _share(x: Float[ndarray, " p"], y: Float[ndarray, " p"], group: Int[ndarray, " p"]) -> float:
    """Return I(x; y | group) / H(y | group) for pairs of networks in either order."""
    kept = (group >= 0) & (x != 0) & (y != 0)
    if not kept.any():
        return math.nan
    # In one order the signs are (x, y), in the other (-x, -y): both are as likely.
    agree = x[kept] * y[kept] > 0
    counts = np.bincount(group[kept]).astype(float)
    agreeing = np.bincount(group[kept], weights=agree)
    some = counts > 0
    p = agreeing[some] / counts[some]
    # Both marginal laws are one half, so that the information is 1 less the entropy of agreeing.
    entropy = -sum(np.where(q > 0, q * np.log2(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p))
    return float(np.average(1 - entropy, weights=counts[some]))
