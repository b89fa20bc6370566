r"""The affine freedom of batch normalisation that keeps its running statistics.

If the channels before it scale by :math:`e^t`, the gain by :math:`e^{-t}`, and the bias becomes
:math:`\beta + (e^{-t} - 1)\, \gamma \mu / \sigma`, then
:math:`\gamma (x - \mu) / \sigma + \beta` stays what it was. The gain and the layer before it scale
like any other parameters; the bias shifts besides, which is what an `AffineShift` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AffineShift:
    """How the bias of one layer shifts with the scales of its input.

    Parameters
    ----------
    gain, bias : str
        The layer's parameters.
    centre : Tensor of shape (c,)
        The running means over the standard deviations, in float64.
    into : Tensor of shape (c,)
        The channels of the input, as rows of `channels`.
    channels : csr_matrix of shape (n_channels, n_scales)
        As in a `ScaledTensor`.
    """

    gain: str
    bias: str
    centre: Tensor
    into: Tensor
    channels: csr_matrix

    def apply(self, parameters: dict[str, Tensor], z: Any) -> None:
        """Shift the bias in place, before anything is rescaled.

        Parameters
        ----------
        parameters : dict of str to Tensor
            The parameters by name.
        z : array_like of shape (n_scales,)
            The free log scales.
        """
        y = torch.from_numpy(np.asarray(self.channels @ np.asarray(z, dtype=np.float64)))
        gain, bias = parameters[self.gain], parameters[self.bias]
        factor = (torch.expm1(-y[self.into]) * self.centre).to(gain.device)
        bias.copy_((bias.double() + factor * gain.double()).to(bias.dtype))
