"""Figures of flatness, symmetries, bits, directions, predictions and regularisation paths."""

from flattest.errors import require

require("matplotlib", extra="plots", purpose="A figure")

from flattest.figures.balancing import bits_by_layer, traces_by_layer
from flattest.figures.loss_and_flatness import loss_against_flatness
from flattest.figures.predictions import Curve, links, predicted_against_true, residuals
from flattest.figures.regression import (
    directions_composition,
    feature_importances,
    regularisation_path,
)
from flattest.figures.style import (
    GREY,
    NEGLIGIBLE_ERROR,
    OKABE_ITO,
    colour,
    mark_negligible,
    marker,
    new_figure,
    save_figure,
)
from flattest.figures.symmetries import chain_of_layers

__all__ = [
    "GREY",
    "NEGLIGIBLE_ERROR",
    "OKABE_ITO",
    "Curve",
    "bits_by_layer",
    "chain_of_layers",
    "colour",
    "directions_composition",
    "feature_importances",
    "links",
    "loss_against_flatness",
    "mark_negligible",
    "marker",
    "new_figure",
    "predicted_against_true",
    "regularisation_path",
    "residuals",
    "save_figure",
    "traces_by_layer",
]
