"""What a fit hands over to prediction: its link and its network, as arrays on the CPU."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from flattest.regression.gaussian_process import Process
from flattest.regression.mixture import Mixture
from flattest.regression.posterior import Posterior
from flattest.regression.prediction.average import Average
from flattest.regression.prediction.conditioned import Conditioned, Seen
from flattest.regression.prediction.link import Link, LinkPart
from flattest.regression.prediction.network import Network
from flattest.regression.prediction.predictor import Predictor
from flattest.regression.prediction.prior import Prior
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.smooth_link import SmoothLink
from flattest.two_layer.networks import TwoLayerNet


def predictor_of(
    net: TwoLayerNet, standardise: Standardisation, link: SmoothLink | None
) -> Predictor:
    """Return what predicts from a fit.

    Parameters
    ----------
    net : TwoLayerNet
        The network on standardised features.
    standardise : Standardisation
        From features as they are to these.
    link : SmoothLink or None
        The processes, if these predict.

    Returns
    -------
    Predictor
        Nothing is computed anew.
    """
    return Predictor(network_of(net), standardise, link and link_of(link))


def network_of(net: TwoLayerNet) -> Network:
    """Return a network as arrays."""
    weights, coefficients = _array(net.weights), _array(net.coefficients)
    return Network(weights, coefficients, **net.activation.to_dict())


def link_of(link: SmoothLink) -> Link:
    """Return a link as arrays."""
    parts = tuple(
        LinkPart(average_of(part.mixture), part.units, part.share, part.network_error)
        for part in link.parts
    )
    return Link(parts, _array(link.basis), link.limits)


def average_of(mixture: Mixture) -> Average:
    """Return a mixture as arrays."""
    rows = mixture.rows and Seen(*(_array(values) for values in mixture.rows))
    return Average(tuple(map(_conditioned_of, mixture.posteriors)), mixture.shares, rows)


def _conditioned_of(posterior: Posterior) -> Conditioned:
    prior = _prior_of(posterior.process)
    return Conditioned(prior, *(_array(values) for values in posterior[1:]))


def _prior_of(process: Process) -> Prior:
    return Prior(
        shape=process.shape,
        projection=_array(process.projection),
        variances=_array(process.variances),
        noise=process.noise,
        inflation=process.inflation,
        additive=process.additive,
        trend=process.trend,
        free=process.free,
    )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
