"""The table of rules: for each kind of autograd node that takes parameters, its closed form.

A rule is called as ``rule(node, slot, cotangents, layout, shape)`` with a node, which of its inputs
is or derives from a parameter, the cotangents of the node's output for all columns, where the
samples are in these, and the shape of the input. It returns a `Contribution`, or raises
`Unsupported`. Rules need not be complete: what they return is compared with autograd sample by
sample before it is used (see `calibration`), and what has no rule is differentiated sample by
sample.

Where a rule needs little of a cotangent, `ARRIVALS` reduces each column as it comes, so that not
all of them have to be held.

To add a rule, write it into the file of its family and add it to that file's `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flattest.modules.squared_gradients import (
    convolution,
    elementwise,
    embedding,
    linear,
    normalisation,
)
from flattest.modules.squared_gradients.contributions import Contribution
from flattest.modules.squared_gradients.layouts import Layout

Arrival = Callable[[Tensor], Tensor]
Rule = Callable[[Any, int, Tensor, Layout, tuple[int, ...]], Contribution]

RULES: dict[str, Rule] = {
    **convolution.RULES,
    **elementwise.RULES,
    **embedding.RULES,
    **linear.RULES,
    **normalisation.RULES,
}

ARRIVALS: dict[str, Callable[[Any], Arrival | None]] = dict(normalisation.ARRIVALS)
"""For some kinds of node, what is kept of each column of cotangents as soon as it arrives."""
