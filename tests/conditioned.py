"""A link conditioned on rows, without a search for its directions."""

import numpy as np
import torch

from flattest.regression.gaussian_process import Data, Process
from flattest.regression.mixture import Mixture
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.prediction.target_scale import TargetScale
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.training_data import Rows
from flattest.regression.variation import Variation


def known_directions(link: SmoothLink) -> SmoothLink:
    """Take the directions of a link for known."""
    return link._replace(
        parts=tuple(part._replace(mixture=known_directions_of(part.mixture)) for part in link.parts)
    )


def known_directions_of(mixture: Mixture) -> Mixture:
    """Take the directions of a mixture for known."""
    return mixture._replace(
        posteriors=tuple(
            posterior._replace(
                turn=torch.zeros(0, 0, dtype=torch.float64),
                known=torch.zeros(len(posterior.points), 0, dtype=torch.float64),
            )
            for posterior in mixture.posteriors
        )
    )


def conditioned_link(rows: Rows, *, logarithmic: bool) -> tuple[SmoothLink, Standardisation]:
    """Condition a process of the first feature on all rows."""
    standardise = Standardisation.of(rows.X, rows.y, rows.weight, centred=True)
    units = TargetScale.of(rows.y, rows.weight, logarithmic=logarithmic, centred=True)
    inputs = torch.from_numpy(standardise(rows.X))
    basis = torch.eye(inputs.shape[1], dtype=inputs.dtype)
    process = Process("gaussian", basis[:, :1], torch.tensor([0.9], dtype=inputs.dtype), 0.05)
    data = Data.of(inputs, torch.from_numpy(units(rows.y)), torch.from_numpy(rows.weight))
    mixture = Mixture.exactly([process], [1.0], data)
    variation = Variation(basis[0, :1], basis[:, :1], basis[0, :1])
    limits = Limits.of(basis[:, :1].numpy(), np.ones(1), inputs[:, :1].numpy())
    parts = (Part(mixture, units),)
    return SmoothLink(parts, basis, limits, [], variation), standardise
