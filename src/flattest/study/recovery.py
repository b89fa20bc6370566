"""When a model counts as recovered, and how many samples that takes."""

from __future__ import annotations

import numpy as np
import pandas as pd

RECOVERED = 1e-6
"""The relative test error up to which the model counts as recovered."""
GAP = 5.0
"""The ratio by which a network that does not generalise is to be sharper than the flattest."""


def size_needed(records: pd.DataFrame, sizes: list[str]) -> pd.Series:
    """Return, per seed, the smallest size from which on the model is always recovered.

    Parameters
    ----------
    records : DataFrame
        Trials of one method, with their `seed` and `test_error`.
    sizes : list of str
        The columns that order the trials of a seed; the last one is returned.

    Returns
    -------
    Series
        By seed. Infinite where the model is never recovered, missing where trials of that seed are.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.study.recovery import size_needed
    >>> table = {"seed": [0, 0, 0], "n": [10, 20, 40], "test_error": [0.5, 1e-9, 1e-9]}
    >>> size_needed(pd.DataFrame(table), ["n"]).tolist()
    [20.0]
    """
    table = records.pivot_table(index="seed", columns=sizes, values="test_error", dropna=False)
    grid = np.append(table.columns.get_level_values(sizes[-1]).to_numpy(float), np.inf)
    failed = (table > RECOVERED).to_numpy()
    last = np.where(failed.any(axis=1), failed.shape[1] - np.argmax(failed[:, ::-1], axis=1), 0)
    return pd.Series(grid[last], index=table.index).mask(table.isna().any(axis=1))
