"""One function, several networks: trained, sharpened, and moved to three minima.

Batch normalisation is folded into the convolutions first, as it is before a network is rounded or
written to a chip. All versions of a network have the same outputs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from flattest.flatness import Flatness
from flattest.measuring import balance, measure, sharpen
from flattest.modules.symmetry.finding import symmetries
from flattest.uses.digits import Split
from flattest.uses.fitting import trained

SHARPENED = 100.0
"""The factor of the sharpened version: that of the trace of a squared error."""
N_MEASURED = 512
"""The training samples that traces are taken on."""
_OBJECTIVES = {"balanced": "trace", "equalised": "range", "rounding-balanced": "quantisation"}
VERSIONS = ("trained", "sharpened", *_OBJECTIVES)


class Version(NamedTuple):
    """A network with its function's samples.

    Parameters
    ----------
    net : torch.nn.Module
        The network, which nobody is to change.
    data : Split
        What it was trained and is to be tested on.
    """

    net: nn.Module
    data: Split

    @property
    def samples(self) -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
        """The training samples that traces are taken on."""
        return self.data.X[:N_MEASURED], self.data.y[:N_MEASURED]


@functools.lru_cache(maxsize=128)
def version(kind: str, name: str, random_state: int) -> Version:
    """Return a version of a trained network; kept, since many trials look at it.

    Parameters
    ----------
    kind : str
        One of :data:`flattest.uses.networks.KINDS`.
    name : str
        One of `VERSIONS`.
    random_state : int
        The seed of data, start, minibatches and of the direction of sharpening.

    Returns
    -------
    Version
        The network and its samples.

    Raises
    ------
    ValueError
        If there is no such version.

    Examples
    --------
    >>> from flattest.uses.versions import VERSIONS
    >>> VERSIONS
    ('trained', 'sharpened', 'balanced', 'equalised', 'rounding-balanced')
    """
    if name not in VERSIONS:
        raise ValueError(f"name must be one of {', '.join(VERSIONS)}, not {name!r}.")
    net, data = trained(kind, random_state)
    if name == "trained":
        return Version(symmetries(net, data.X[:2], batch_norm="fold").module, data)
    base = version(kind, "trained", random_state)
    X, y = base.samples
    if name == "sharpened":
        return Version(sharpen(base.net, SHARPENED, X, random_state=random_state), data)
    moved = balance(base.net, X, y, loss="cross_entropy", objective=_OBJECTIVES[name])
    return Version(moved, data)


@functools.lru_cache(maxsize=128)
def flatness(kind: str, name: str, random_state: int) -> Flatness:
    """Measure a version on its samples; exact, as all these networks have ReLUs only.

    Parameters
    ----------
    kind, name, random_state
        As for `version`.

    Returns
    -------
    Flatness
        The traces, layer by layer.
    """
    found = version(kind, name, random_state)
    return measure(found.net, *found.samples, loss="cross_entropy")
