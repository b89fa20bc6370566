"""A link conditioned on rows, without a search for its directions."""

import pandas as pd
import torch

from flattest.regression.gaussian_process import Data, Posterior, Process
from flattest.regression.limits import Limits
from flattest.regression.mixture import Mixture
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.target_scale import TargetScale
from flattest.regression.training_data import Rows, Standardisation
from flattest.regression.variation import Variation


def conditioned_link(rows: Rows, *, logarithmic: bool) -> tuple[SmoothLink, Standardisation]:
    """Condition a process of the first feature on all rows."""
    standardise = Standardisation.of(rows, centred=True)
    units = TargetScale.of(rows.y, rows.weight, logarithmic=logarithmic, centred=True)
    inputs = torch.from_numpy(standardise(rows.X))
    basis = torch.eye(inputs.shape[1], dtype=inputs.dtype)
    process = Process("gaussian", basis[:, :1], torch.tensor([0.9], dtype=inputs.dtype), 0.05)
    data = Data.of(inputs, units(torch.from_numpy(rows.y)), torch.from_numpy(rows.weight))
    mixture = Mixture((Posterior.of(process, data),), (1.0,))
    variation = Variation(basis[0, :1], basis[:, :1])
    limits = Limits.of(variation, inputs)
    parts = (Part(mixture, units),)
    return SmoothLink(parts, basis, limits, pd.DataFrame(), variation), standardise
