"""One batch as a part of the loss: its call, its logits, its loss of these, and its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from flattest.modules.calls import Call


class Part(NamedTuple):
    """One batch of the loss.

    Parameters
    ----------
    call : Call
        The batch.
    logits : Tensor of shape (n, ...)
        Its logits, in float64.
    evaluate : callable
        Its loss, of such logits.
    weight : float
        How much it counts.
    step : int
        Samples worked on together.
    """

    call: Call
    logits: Tensor
    evaluate: Callable[[Tensor], Tensor]
    weight: float
    step: int
