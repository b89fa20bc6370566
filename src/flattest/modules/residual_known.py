r"""The part of a linear layer's second derivative that is known without probing it.

The residual curvature in the result u of a linear layer, :math:`H_u`, is a sum over the nonlinear
nodes behind it. Two terms have a closed form in every row: that of an activation which u enters
itself, and that of the activation one linear layer W further on,

.. math:: K = \mathrm{diag}(c f''(u)) +
    \mathrm{diag}(f') W^\top \mathrm{diag}(c_2 f_2''(u_2)) W \mathrm{diag}(f'),
    \qquad u_2 = W f(u),

with c and :math:`c_2` the gradients that arrive behind the activations. Their diagonals take one
product with the squared weights. Where they are all there is, which the walk of `linearity` proves,
they are the trace. Where the chain of layers goes on, but nothing else is curved, the trace follows
from the last layer to the first (`residual_recursion`), as far as that is not too much work.
Elsewhere a probe v is compared with what it says of K, of which the trace is known:
:math:`v^\top (H_u - K) v + \mathrm{tr} K` has the mean of :math:`v^\top H_u v` and lacks the noise
of K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from flattest.modules.linearity import Node
from flattest.modules.residual_chains import Chains
from flattest.modules.residual_recursion import diagonals, worth
from flattest.modules.residual_uses import LinearUse, Use

_DEPTH = 2  # activations of a chain whose curvature one product with squared weights gives


class Ahead(NamedTuple):
    """The curvature of an activation behind the next linear layer.

    Parameters
    ----------
    slope : Tensor of shape (rows, o)
        The first derivative of the activation between the two layers.
    weight : Tensor of shape (o_2, o)
        The next layer's.
    bend : Tensor of shape (rows, o_2)
        The second derivative behind it, times the gradient that arrives.
    """

    slope: Float[Tensor, "rows o"]
    weight: Float[Tensor, "o_2 o"]
    bend: Float[Tensor, "rows o_2"]


@dataclass(frozen=True)
class Known:
    """The known part of a second derivative, one block per row.

    Parameters
    ----------
    own : Tensor of shape (rows, o)
        The diagonal from u's own activations.
    ahead : tuple of Ahead
        The terms from the next layers.
    complete : bool
        Whether it is proved that there is nothing else.
    whole : Tensor of shape (rows, o), optional
        The diagonal with all terms from further layers, where these were added up and it is proved
        that there is nothing else.
    """

    own: Float[Tensor, "rows o"]
    ahead: tuple[Ahead, ...]
    complete: bool
    whole: Float[Tensor, "rows o"] | None = None

    @property
    def exact(self) -> bool:
        """Whether the diagonal of all of the second derivative is known."""
        return self.complete or self.whole is not None

    def diagonal(self) -> Float[Tensor, "rows o"]:
        """Return the diagonal of the first two terms, in float64."""
        total = self.own.double()
        for slope, weight, bend in self.ahead:
            total = total + slope.double() ** 2 * (bend.double() @ weight.double() ** 2)
        return total

    def product(self, tangent: Float[Tensor, "rows o"]) -> Float[Tensor, "rows o"]:
        """Return the product of the first two terms with a tangent."""
        total = self.own * tangent
        for slope, weight, bend in self.ahead:
            total = total + slope * ((bend * ((slope * tangent) @ weight.mT)) @ weight)
        return total


def known_curvatures(
    outputs: Tensor, cotangent: Tensor, uses: Sequence[Use], limit: float | int = math.inf
) -> list[tuple[Use, Known | None]]:
    """Find what is known of the second derivatives in the results of uses.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, with their graph.
    cotangent : Tensor
        The gradient of the loss in them.
    uses : sequence of Use
        The operations.
    limit : float
        How many double backward passes the terms from further layers may be worth.

    Returns
    -------
    list of (Use, Known or None)
        One per use; None where nothing is known.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_graph import find_uses
    >>> from flattest.modules.residual_known import known_curvatures
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> outputs = layer(torch.tensor([[1.0], [2.0]])) ** 2
    >>> uses = find_uses(outputs, dict(layer.named_parameters()))
    >>> ((_, known),) = known_curvatures(outputs, torch.ones_like(outputs), uses)
    >>> known.diagonal().flatten().tolist(), known.complete
    ([2.0, 2.0], True)
    """
    layers = [use.node for use in uses if isinstance(use, LinearUse)]
    if not layers:
        return [(use, None) for use in uses]
    chains = Chains(outputs, cotangent, layers)
    complete = chains.complete(_DEPTH)
    # From the last layer on, for the first ones take the most work.
    further = sorted(chains.complete() - complete, key=lambda layer: -chains.place[layer])
    while further and worth(chains, further) > limit:
        further.pop()
    whole = diagonals(chains, further)
    known = {layer: _known(chains, layer, layer in complete, whole.get(layer)) for layer in layers}
    return [(use, known.get(use.node)) for use in uses]


def _known(chains: Chains, layer: Node, complete: bool, whole: Tensor | None) -> Known | None:
    """Put the terms of one layer's activations together."""
    own, terms = None, []
    for node, entries in chains.following[layer].items():
        if node not in chains.derivatives:
            continue
        first, bend = chains.derivatives[node]
        own = bend if own is None else own + bend
        terms += [
            Ahead(first, entry.weight, chains.derivatives[other].bend)
            for entry in entries
            for other in chains.following[entry.node]
            if other in chains.derivatives
        ]
    return None if own is None else Known(own, tuple(terms), complete, whole)
