"""Saved models: a fitted regression, with all it takes to predict from a table, in one file.

Nothing here needs PyTorch, which takes longer to load than to predict with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save as serialize

from flattest._version import __version__
from flattest.files import replace_file
from flattest.regression.prediction.predictor import Predictor, check_stored
from flattest.tables.encoding import Encoding
from flattest.tables.model_file import (
    FORMAT,
    SavedModelError,
    find_model,
    readable,
    stored_encoding,
)
from flattest.tables.texts import Table

if TYPE_CHECKING:
    from flattest.regression.regressor import MultiIndexRegressor


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A regression on standardised features, and how to get there from a table.

    Parameters
    ----------
    predictor : Predictor
        The network and, where there is one, the Gaussian process, with the standardisation.
    encoding : Encoding
        From the columns of a table to features.
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

    predictor: Predictor
    encoding: Encoding
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
            predictor=regressor.predictor_,
            encoding=encoding,
            directions=regressor.directions_,
            importances=regressor.direction_importances_,
        )

    @property
    def loadings(self) -> Float[np.ndarray, "k d"]:
        """The directions per standard deviation of each feature, as unit vectors.

        Unlike `directions` they do not depend on the units that the features come in.
        """
        return self.predictor.loadings(self.directions)

    def predict(self, table: Table) -> Float[np.ndarray, " n"]:
        """Predict the target for the rows of a table.

        Parameters
        ----------
        table : TextTable or DataFrame
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
        return self.predictor(self.encoding.features(table))

    def predict_interval(
        self, features: Float[np.ndarray, "n d"], level: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Predict the target, with intervals.

        As probable a target lies below its interval as above; where logarithms of the targets were
        fitted, intervals are longer upwards and stay positive.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            The features of the rows, as `Encoding.encode` gives them.
        level : float
            The probability with which a new target lies inside, between 0 and 1.

        Returns
        -------
        mean, lower, upper : ndarray of shape (n,)
            The predictions and the ends of their intervals.

        Raises
        ------
        SavedModelError
            If a network predicts, which knows no deviations.
        """
        if self.predictor.link is None:
            raise SavedModelError(
                "The model has no intervals, since a network predicts and no Gaussian process; "
                "leave out --level."
            )
        law = self.predictor.law(features)
        return law.moments()[0], *law.interval(level)

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
        return replace(self, encoding=self.encoding.with_target(target or self.encoding.target))

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
        arrays = self.predictor.arrays() | {
            "directions": np.ascontiguousarray(self.directions),
            "importances": np.ascontiguousarray(self.importances),
        }
        metadata = {
            "format": FORMAT,
            "predictor": json.dumps(self.predictor.description(), allow_nan=False),
            "encoding": json.dumps(self.encoding.to_dict()),
            "flattest_version": self.fitted_with,
        }
        replace_file(Path(path), serialize(arrays, metadata=metadata))

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
            Predicts the same as the one saved, to rounding.

        Raises
        ------
        SavedModelError
            If there is no such file, or it is truncated, damaged or of another kind.
        """
        source = find_model(path)
        with readable(source), safe_open(source, framework="np") as file:
            return cls._read(file.get_tensor, file.metadata() or {})

    @classmethod
    def _read(cls, array: Callable[[str], np.ndarray], metadata: dict[str, str]) -> SavedModel:
        encoding = stored_encoding(metadata)
        predictor = Predictor.of(json.loads(metadata["predictor"]), array)
        d, fitted = len(encoding.feature_names), len(predictor.standardise.mean)
        if fitted != d:
            raise ValueError(f"it was fitted to {fitted} features, but encodes {d}")
        directions, importances = array("directions"), array("importances")
        check_stored("directions", directions, (len(directions), d))
        check_stored("importances", importances, (len(directions),))
        return cls(
            predictor=predictor,
            encoding=encoding,
            directions=directions,
            importances=importances,
            fitted_with=metadata["flattest_version"],
        )
