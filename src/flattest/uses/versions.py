"""One function, several networks: trained, sharpened, and moved to three minima.

Batch normalisation is folded into the convolutions first, as it is before a network is rounded or
written to a chip. All versions of a network have the same outputs.
"""

from __future__ import annotations

import copy
import functools
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from flattest.flatness import Flatness
from flattest.measuring import balance, measure, sharpen
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
        return Version(folded(net), data)
    base = version(kind, "trained", random_state)
    X, y = base.samples
    if name == "sharpened":
        return Version(sharpen(base.net, SHARPENED, X, random_state=random_state), data)
    moved = balance(base.net, X, y, loss="cross_entropy", objective=_OBJECTIVES[name])
    return Version(moved, data)


def folded(net: nn.Module) -> nn.Module:
    """Return a chain of layers with batch normalisation folded into the convolutions before it.

    The convolutions get biases, and nothing is left of the normalisation, so that all parameters
    are those that a chip would hold, and bias correction finds its biases.

    Parameters
    ----------
    net : torch.nn.Sequential
        The network, in evaluation mode; it is not changed.

    Returns
    -------
    torch.nn.Sequential
        The same function.
    """
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(net).children():
        before = layers[-1] if layers else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(before, layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).requires_grad_(True).eval()  # the new biases too


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
