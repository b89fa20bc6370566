"""Why two passes of a module over the same samples differ, in one sentence."""

from __future__ import annotations

import torch

from flattest.modules.calls import Call
from flattest.modules.squared_gradients.calibration import tolerance


def explain(call: Call, part: slice) -> ValueError:
    """Say why two passes over the same samples differ."""
    one, two = (call.outputs_without_graph(part) for _ in range(2))
    if (
        not torch.equal(one, two)
        and (one - two).abs().max() > tolerance(one.dtype) * one.abs().max()
    ):
        return ValueError(
            "Two passes over the same data give different outputs: the model draws random numbers, "
            "as dropout does; call model.eval(), and do not use functional dropout with its "
            "default training=True."
        )
    return ValueError(
        "The outputs for a sample depend on the other samples of its batch, as with batch "
        "normalisation in training mode; call model.eval() first, and put samples along the first "
        "dimension."
    )
