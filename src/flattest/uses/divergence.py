"""How far a changed network's predictions are from those of the network that it was."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Change(NamedTuple):
    """What a change of weights did.

    Parameters
    ----------
    divergence : float
        The mean Kullback-Leibler divergence of the new class probabilities from the old ones, in
        nats.
    agreement : float
        The share of samples whose predicted class stayed.
    accuracy : float
        The share of samples whose class is predicted now.
    loss : float
        The mean cross-entropy now.
    """

    divergence: float
    agreement: float
    accuracy: float
    loss: float


def change(
    before: Float[Tensor, "n c"], after: Float[Tensor, "n c"], y: Int[Tensor, " n"]
) -> Change:
    """Compare logits.

    Parameters
    ----------
    before, after : Tensor of shape (n, c)
        The logits of the two networks.
    y : Tensor of shape (n,)
        The classes.

    Returns
    -------
    Change
        Means over the samples.

    Examples
    --------
    >>> import torch
    >>> from flattest.uses.divergence import change
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> change(logits, logits.flip(1), torch.tensor([0, 1])).agreement
    0.0
    """
    old, new = before.log_softmax(1), after.log_softmax(1)
    classes = after.argmax(1)
    return Change(
        divergence=float((old.exp() * (old - new)).sum(1).mean()),
        agreement=float((classes == before.argmax(1)).double().mean()),
        accuracy=float((classes == y).double().mean()),
        loss=float(torch.nn.functional.nll_loss(new, y)),
    )
