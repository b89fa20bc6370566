"""The output layer alone: a linear problem once the directions are fixed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def least_norm(features: Float[Tensor, "n m"], target: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Return the coefficients of least norm among those with the least squared error.

    Parameters
    ----------
    features : Tensor of shape (n, m)
        The activations of the neurons.
    target : Tensor of shape (n,)
        The targets.

    Returns
    -------
    Tensor of shape (m,)
        The coefficients.

    Examples
    --------
    >>> import torch
    >>> from flattest.interpolators.output_layer import least_norm
    >>> least_norm(torch.tensor([[1.0, 1.0]]), torch.tensor([4.0])).round(decimals=3)
    tensor([2., 2.])
    """
    solved = torch.linalg.lstsq(features.cpu(), target.cpu()[:, None], driver="gelsd").solution
    return solved[:, 0].to(features)
