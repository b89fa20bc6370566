"""Saved models: a fitted regression, with all it takes to predict from a table, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flattest._version import __version__
from flattest.activations import Homogeneous
from flattest.flatness import Flatness, measure
from flattest.networks import TwoLayerNet, append_bias_coordinate, write_safetensors
from flattest.regression.regressor import MultiIndexRegressor
from flattest.tables.encoding import Encoding

MODEL_FILE = "model.safetensors"
"""The name of a model file in the folder of a fit."""
_FORMAT = "flattest.SavedModel/1"
_ROWS = 1 << 14  # predicted together, to bound the memory


class SavedModelError(ValueError):
    """A file that is no readable model; the message says why."""


@dataclass(frozen=True, eq=False)
class SavedModel:
    r"""A network on standardised features, and how to get there from a table.

    The prediction for the features ``x`` of a row is

    .. math:: \text{intercept} + f\big((x - \text{mean}) \cdot \text{inverse scale}\big),

    with a bias coordinate 1 appended where the network has one input more.

    Parameters
    ----------
    network : TwoLayerNet
        The network ``f``.
    encoding : Encoding
        From the columns of a table to features.
    mean, inverse_scale : ndarray of shape (d,)
        The standardisation of the features.
    intercept : float
        What is added to the network's output.
    directions : ndarray of shape (k, d)
        The directions found, for the features as they are.
    importances : ndarray of shape (k,)
        Their shares.
    fitted_with : str
        The version of flattest that fitted the model.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import learn_encoding
    >>> from flattest.regression.regressor import MultiIndexRegressor
    >>> from flattest.tables.saved_model import SavedModel
    >>> frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0] * 5, "y": [0.0, 1.0, 2.0, 3.0] * 5})
    >>> encoding = learn_encoding(frame, "y")
    >>> regressor = MultiIndexRegressor(width=5, random_state=0)
    >>> regressor = regressor.fit(encoding.features(frame), encoding.target_values(frame))
    >>> model = SavedModel.of(regressor, encoding)
    >>> bool((model.predict(frame) == regressor.predict(encoding.features(frame))).all())
    True
    """

    network: TwoLayerNet
    encoding: Encoding
    mean: Float[np.ndarray, " d"]
    inverse_scale: Float[np.ndarray, " d"]
    intercept: float
    directions: Float[np.ndarray, "k d"]
    importances: Float[np.ndarray, " k"]
    fitted_with: str = field(default=__version__)

    @classmethod
    def of(cls, regressor: MultiIndexRegressor, encoding: Encoding) -> SavedModel:
        """Take what is needed out of a fitted regressor.

        Parameters
        ----------
        regressor : MultiIndexRegressor
            Fitted on the features of the encoding.
        encoding : Encoding
            The encoding.

        Returns
        -------
        SavedModel
            Predicts the same.
        """
        return cls(
            network=regressor.network_,
            encoding=encoding,
            mean=regressor.mean_,
            inverse_scale=regressor.inverse_scale_,
            intercept=float(regressor.intercept_),
            directions=regressor.directions_,
            importances=regressor.direction_importances_,
        )

    @property
    def loadings(self) -> Float[np.ndarray, "k d"]:
        """The directions per standard deviation of each feature, as unit vectors.

        Unlike `directions` they do not depend on the units that the features come in.
        """
        spread = np.divide(
            1.0, self.inverse_scale, out=np.zeros_like(self.mean), where=self.inverse_scale > 0
        )
        scaled = self.directions * spread
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        return np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)

    def inputs(self, frame: pd.DataFrame) -> Float[Tensor, "n h"]:
        """Return the inputs of the network for the rows of a table.

        Parameters
        ----------
        frame : DataFrame
            The table.

        Returns
        -------
        Tensor of shape (n, h)
            Standardised features, and the bias coordinate where there is one.

        Raises
        ------
        TableError
            If the table does not fit the encoding.
        """
        standardised = (self.encoding.features(frame) - self.mean) * self.inverse_scale
        inputs = torch.from_numpy(standardised)
        biased = self.network.n_features > len(self.mean)
        return append_bias_coordinate(inputs) if biased else inputs

    @torch.no_grad()
    def predict(self, frame: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Predict the target for the rows of a table.

        Parameters
        ----------
        frame : DataFrame
            The table; it need not have the target.

        Returns
        -------
        ndarray of shape (n,)
            The predictions.

        Raises
        ------
        TableError
            If the table does not fit the encoding.
        """
        blocks = self.inputs(frame).split(_ROWS)
        return self.intercept + torch.cat([self.network(block) for block in blocks]).numpy()

    def measure(self, frame: pd.DataFrame) -> Flatness:
        """Measure the flatness of the network on a table, on standardised features.

        Parameters
        ----------
        frame : DataFrame
            The table, with the target.

        Returns
        -------
        Flatness
            The measurements; its `loss` is the mean squared error in the units of the target.

        Raises
        ------
        TableError
            If the table does not fit the encoding.
        """
        target = self.encoding.target_values(frame) - self.intercept
        return measure(self.network, self.inputs(frame), torch.from_numpy(target))

    def with_target(self, target: str | None) -> SavedModel:
        """Return the same model with its target in another column of the table.

        Parameters
        ----------
        target : str or None
            The column; None for the one of the fit.

        Returns
        -------
        SavedModel
            The model.
        """
        encoding = replace(self.encoding, target=target or self.encoding.target)
        return replace(self, encoding=encoding)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file: numbers and JSON, no pickle.

        Parameters
        ----------
        path : str or path
            The file; it appears whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        tensors = {
            "weights": self.network.weights.detach().contiguous(),
            "coefficients": self.network.coefficients.detach().contiguous(),
            "mean": torch.from_numpy(np.ascontiguousarray(self.mean)),
            "inverse_scale": torch.from_numpy(np.ascontiguousarray(self.inverse_scale)),
            "intercept": torch.tensor([self.intercept], dtype=torch.float64),
            "directions": torch.from_numpy(np.ascontiguousarray(self.directions)),
            "importances": torch.from_numpy(np.ascontiguousarray(self.importances)),
        }
        metadata = {
            "format": _FORMAT,
            "activation": json.dumps(self.network.activation.to_dict()),
            "encoding": json.dumps(self.encoding.to_dict()),
            "flattest_version": self.fitted_with,
        }
        write_safetensors(Path(path), tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SavedModel:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path
            The file, or the folder of a fit that holds it.

        Returns
        -------
        SavedModel
            Predicts the same as the one saved, to the last bit.

        Raises
        ------
        SavedModelError
            If there is no such file, or it is truncated, damaged or of another kind.
        """
        source = Path(path)
        if source.is_dir():
            if not (source / MODEL_FILE).exists():
                raise SavedModelError(
                    f"The folder {str(source)!r} holds no {MODEL_FILE}; give the --out folder of "
                    "'flattest fit', or its model file."
                )
            source /= MODEL_FILE
        if not source.exists():
            raise SavedModelError(f"There is no model {str(source)!r}; 'flattest fit' makes one.")
        try:
            with safe_open(source, framework="pt") as file:
                return cls._read(file.get_tensor, file.metadata() or {})
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise SavedModelError(
                f"{str(source)!r} is not a model written by 'flattest fit', or it is damaged "
                f"({_reason(error)}); fit it again."
            ) from error

    @classmethod
    def _read(cls, tensor: Callable[[str], Tensor], metadata: dict[str, str]) -> SavedModel:
        found = metadata.get("format")
        if found != _FORMAT:
            raise ValueError(f"its format is {found!r}, not {_FORMAT!r}")
        shape = Homogeneous.from_dict(json.loads(metadata["activation"]))
        encoding = Encoding.from_dict(json.loads(metadata["encoding"]))
        network = TwoLayerNet(tensor("weights"), tensor("coefficients"), shape)
        names = ("mean", "inverse_scale", "intercept", "directions", "importances")
        tensors = {name: tensor(name) for name in names}
        d, k = len(encoding.feature_names), len(tensors["directions"])
        shapes = ((d,), (d,), (1,), (k, d), (k,))
        for name, dimensions in zip(names, shapes, strict=True):
            if tuple(tensors[name].shape) != dimensions or tensors[name].dtype != torch.float64:
                raise ValueError(f"{name} does not have shape {dimensions} in float64")
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} contains NaN or infinity")
        if network.n_features not in (d, d + 1):
            raise ValueError(f"the network has {network.n_features} inputs for {d} features")
        return cls(
            network=network,
            encoding=encoding,
            mean=tensors["mean"].numpy(),
            inverse_scale=tensors["inverse_scale"].numpy(),
            intercept=float(tensors["intercept"]),
            directions=tensors["directions"].numpy(),
            importances=tensors["importances"].numpy(),
            fitted_with=metadata["flattest_version"],
        )


def _reason(error: Exception) -> str:
    """Return a reason that fits into a sentence."""
    if isinstance(error, KeyError):
        return f"it has no entry {error}"
    return str(error).rstrip(".").split("\n")[0]
