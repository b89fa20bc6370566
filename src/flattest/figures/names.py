"""Names of columns as labels: none cut off, none mistaken for another or for a formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

LONGEST, LONGEST_BESIDE = 40, 28
"""Letters of a name; and of one that stands along an axis of a panel."""
_LEAST = 0.05  # of a unit vector: smaller weights are not named


def label(name: str) -> str:
    r"""Return a name as matplotlib draws it letter by letter, in one line.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    str
        The label.

    Examples
    --------
    >>> from flattest.figures.names import label
    >>> print(label("price in $ (now $9)"))
    price in \$ (now \$9)
    """
    return " ".join(name.split()).replace("$", r"\$")


def shortened(names: Sequence[str], most: int = LONGEST) -> list[str]:
    """Shorten names in the middle, only so far that those that differ still do.

    Parameters
    ----------
    names : sequence of str
        The names.
    most : int
        How long a name may be, if nothing speaks against it.

    Returns
    -------
    list of str
        Labels, as of :func:`label`.

    Examples
    --------
    >>> from flattest.figures.names import shortened
    >>> shortened(["neighbourhood=northern suburbs", "age"], 20)
    ['neighbourhood…uburbs', 'age']
    """
    whole = [" ".join(name.split()) for name in names]
    while True:
        short = [_shorten(name, most) for name in whole]
        if len(set(short)) == len(set(whole)):
            return [label(name) for name in short]
        most += 4


def heaviest(loading: Float[np.ndarray, " d"], names: Sequence[str], most: int = 2) -> str:
    """Say which features a direction is made of, those of the largest weights.

    Parameters
    ----------
    loading : ndarray of shape (d,)
        The weights.
    names : sequence of str
        The names.
    most : int
        How many features to name.

    Returns
    -------
    str
        A line for each.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures.names import heaviest
    >>> print(heaviest(np.array([0.6, 0.0, -0.8]), ["age", "sex", "bmi"]))
    −0.80 bmi
    +0.60 age
    """
    order = np.argsort(-np.abs(loading), kind="stable")[:most]
    named = [int(i) for i in order if abs(loading[i]) >= _LEAST]
    labels = shortened([names[i] for i in named], LONGEST_BESIDE)
    weights = [f"{loading[i]:+.2f}".replace("-", "−") for i in named]
    lines = [f"{weight} {name}" for weight, name in zip(weights, labels, strict=True)]
    if (rest := int((np.abs(loading) >= _LEAST).sum()) - len(lines)) > 0:
        lines.append(f"and {rest} more")
    return "\n".join(lines)


def _shorten(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    tail = most // 3
    return f"{name[: most - tail - 1].rstrip()}…{name[-tail:].lstrip()}"
