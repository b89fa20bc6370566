"""The network of a saved model, and its flatness; unlike predictions, this takes PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from flattest.regression.training_data import with_bias
from flattest.tables.faults import TableError
from flattest.tables.saved_model import SavedModel
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.flatness import TwoLayerFlatness
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet


def saved_net(model: SavedModel) -> TwoLayerNet:
    """Return the network of a model.

    Parameters
    ----------
    model : SavedModel
        The model.

    Returns
    -------
    TwoLayerNet
        On standardised features, and the bias coordinate where there is one.
    """
    net = model.predictor.network
    activation = Homogeneous(net.degree, net.positive, net.negative)
    return TwoLayerNet(net.weights, net.coefficients, activation)


def measure_saved(
    model: SavedModel, features: Float[np.ndarray, "n d"], target: Float[np.ndarray, " n"]
) -> TwoLayerFlatness:
    """Measure the flatness of a model's network on rows, on standardised features.

    Parameters
    ----------
    model : SavedModel
        The model.
    features : ndarray of shape (n, d)
        The features of the rows, as `Encoding.encode` gives them.
    target : ndarray of shape (n,)
        NaN for rows without a value, which are left out.

    Returns
    -------
    TwoLayerFlatness
        The measurements; its `loss` is the network's own mean squared error, in the units of the
        target.

    Raises
    ------
    TableError
        If no row has a value of the target.
    """
    known = ~np.isnan(target)
    if not known.any():
        raise TableError(f"No row has a value of the target {model.encoding.target!r}.")
    net, standardise = saved_net(model), model.predictor.standardise
    inputs = torch.from_numpy(standardise(features[known]))
    inputs = with_bias(inputs, net.n_features > inputs.shape[1])
    return measure(net, inputs, torch.from_numpy(target[known] - standardise.intercept))
