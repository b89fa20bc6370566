"""Two-layer homogeneous networks: prediction, bias, saving and loading."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from flattest._version import __version__
from flattest.files import replace_file
from flattest.two_layer.activations import Homogeneous, activation as get_activation
from flattest.validation import Argument, Like, check_matrix, check_vector

_FORMAT = "flattest.TwoLayerNet/1"
_WEIGHTS, _COEFFICIENTS = Argument("weights", "neuron"), Argument("coefficients", "neuron")


class TwoLayerNet(torch.nn.Module):
    r"""A two-layer network with a positively homogeneous activation and one output.

    .. math:: f(x) = \sum_{j=1}^m a_j \, s(w_j \cdot x)

    Parameters
    ----------
    weights : Tensor or array_like of shape (m, d)
        Row ``j`` is ``w_j``. Tensors keep their dtype and device; other input becomes float64.
    coefficients : Tensor or array_like of shape (m,)
        The output weights ``a_j``, of the same dtype and device.
    activation : Homogeneous or str
        The activation ``s``, or its name.

    Attributes
    ----------
    weights, coefficients : torch.nn.Parameter
        Copies of what was given.
    activation : Homogeneous
        The activation.

    Raises
    ------
    TypeError
        If an argument has the wrong type or the dtypes differ.
    ValueError
        If shapes or devices do not fit, or a value is not finite.

    Examples
    --------
    >>> import torch
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[1.0, 0.0], [0.0, 2.0]], [1.0, -1.0], "relu")
    >>> net(torch.tensor([[3.0, 1.0]], dtype=torch.float64)).detach()
    tensor([1.], dtype=torch.float64)
    """

    weights: torch.nn.Parameter
    coefficients: torch.nn.Parameter

    def __init__(self, weights: Any, coefficients: Any, activation: Any) -> None:
        super().__init__()
        w = check_matrix(weights, _WEIGHTS)
        tensors = isinstance(weights, Tensor) or isinstance(coefficients, Tensor)
        a = check_vector(coefficients, _COEFFICIENTS, Like.tensor(w) if tensors else None)
        if len(a) != len(w):
            raise ValueError(
                f"coefficients has {len(a)} values, but weights has {len(w)} rows (neurons)."
            )
        self.activation: Homogeneous = get_activation(activation)
        self.weights = torch.nn.Parameter(w.clone())
        self.coefficients = torch.nn.Parameter(a.to(w.dtype, copy=True))

    @property
    def width(self) -> int:
        """The number of neurons ``m``."""
        return self.weights.shape[0]

    @property
    def n_features(self) -> int:
        """The number of input features ``d``, a bias coordinate included."""
        return self.weights.shape[1]

    @property
    def degree(self) -> float:
        """The degree ``p`` of the activation."""
        return self.activation.degree

    @property
    def like(self) -> Like:
        """What data for the network must be like."""
        return Like.model(self.weights, self.n_features)

    def forward(self, X: Any) -> Float[Tensor, " n"]:
        """Predict one number per row of `X`.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Of the network's dtype and device.

        Returns
        -------
        Tensor of shape (n,)
            ``f(x_i)``, attached to the autograd graph as usual.

        Raises
        ------
        TypeError
            If `X` is not a tensor, or of another dtype.
        ValueError
            If its shape or device does not fit.

        Examples
        --------
        >>> import torch
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet(torch.eye(2), torch.ones(2), "abs")
        >>> net(torch.tensor([[-1.0, 2.0]])).detach()
        tensor([3.])
        """
        if not isinstance(X, Tensor):
            what_to_do = "; use torch.from_numpy(X)" if isinstance(X, np.ndarray) else ""
            raise TypeError(f"X must be a torch.Tensor, not {type(X).__name__}{what_to_do}.")
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(
                f"X must have shape (n, {self.n_features}), but has shape {tuple(X.shape)}."
            )
        if X.device != self.weights.device:
            raise ValueError(f"X is on {X.device}, but the model is on {self.weights.device}.")
        if X.dtype != self.weights.dtype:
            raise TypeError(
                f"X has dtype {X.dtype}, but the model has {self.weights.dtype}; "
                f"use X.to({self.weights.dtype})."
            )
        return self.activation(X @ self.weights.T) @ self.coefficients

    def extra_repr(self) -> str:
        """Describe the network in one line, for ``repr``."""
        return f"width={self.width}, n_features={self.n_features}, activation={self.activation!r}"

    @classmethod
    def with_bias(
        cls, weights: Any, biases: Any, coefficients: Any, activation: Any
    ) -> TwoLayerNet:
        """Build ``sum_j a_j s(w_j . x + b_j)`` as a network on the inputs ``(x, 1)``.

        Parameters
        ----------
        weights : Tensor or array_like of shape (m, d)
            Without the bias.
        biases : Tensor or array_like of shape (m,)
            One per neuron; becomes the last column of the weights.
        coefficients : Tensor or array_like of shape (m,)
            The output weights.
        activation : Homogeneous or str
            The activation.

        Returns
        -------
        TwoLayerNet
            With ``d + 1`` features; evaluate it on :func:`append_bias_coordinate` of the data.

        Raises
        ------
        TypeError, ValueError
            As for the constructor.

        Examples
        --------
        >>> import torch
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet.with_bias([[2.0]], [1.0], [1.0], "relu")
        >>> net(ft.append_bias_coordinate(torch.tensor([[3.0]], dtype=torch.float64))).detach()
        tensor([7.], dtype=torch.float64)
        """
        w = check_matrix(weights, _WEIGHTS)
        b = check_vector(biases, Argument("biases", "neuron"), Like.tensor(w))
        if len(b) != len(w):
            raise ValueError(f"biases has {len(b)} values, but weights has {len(w)} rows.")
        return cls(torch.cat([w, b[:, None]], dim=1), coefficients, activation)

    def split_bias(self) -> tuple[Tensor, Tensor]:
        """Read the last weight column as the bias: the inverse of :meth:`with_bias`.

        Returns
        -------
        weights : Tensor of shape (m, d - 1)
            The weights of the features proper.
        biases : Tensor of shape (m,)
            The weights of the bias coordinate.

        Raises
        ------
        ValueError
            If the network has one feature only.

        Examples
        --------
        >>> import flattest as ft
        >>> weights, biases = ft.TwoLayerNet([[2.0, 1.0]], [1.0], "relu").split_bias()
        >>> weights, biases
        (tensor([[2.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
        """
        if self.n_features < 2:
            raise ValueError("The network has one feature only, so no column beside it is a bias.")
        w = self.weights.detach()
        return w[:, :-1].clone(), w[:, -1].clone()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: no pickle, and never half a file.

        Parameters
        ----------
        path : str or path
            Where to write; an existing file is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet([[1.0, 2.0]], [3.0], "relu2")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(Path(folder) / "net.safetensors")
        ...     ft.TwoLayerNet.load(Path(folder) / "net.safetensors")
        TwoLayerNet(width=1, n_features=2, activation=Homogeneous('relu2'))
        """
        target = _check_path(path)
        if not target.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {str(target.parent)!r} to save into.")
        if target.is_dir():
            raise IsADirectoryError(f"{str(target)!r} is a folder; give the name of a file.")
        tensors = {
            "weights": self.weights.detach().cpu().contiguous(),
            "coefficients": self.coefficients.detach().cpu().contiguous(),
        }
        metadata = {
            "format": _FORMAT,
            "activation": json.dumps(self.activation.to_dict()),
            "flattest_version": __version__,
        }
        replace_file(target, serialize(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TwoLayerNet:
        """Read a network that :meth:`save` wrote, onto the CPU.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        TwoLayerNet
            Equal to the saved one to the last bit.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file cannot be read, is truncated, or does not hold such a network.

        Examples
        --------
        See :meth:`save`.
        """
        source = _check_path(path)
        if not source.exists():
            raise FileNotFoundError(f"There is no model file {str(source)!r}.")
        try:
            if source.is_dir():
                raise ValueError("it is a folder")
            with safe_open(source, framework="pt") as file:
                metadata = file.metadata() or {}
                found = metadata.get("format")
                if found != _FORMAT:
                    raise ValueError(f"its format is {found!r}, not {_FORMAT!r}")
                shape = Homogeneous.from_dict(json.loads(metadata["activation"]))
                return cls(file.get_tensor("weights"), file.get_tensor("coefficients"), shape)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(source)!r} is not a readable flattest model file "
                f"({str(error).rstrip('.')}); "
                "save the network again with TwoLayerNet.save."
            ) from error


def append_bias_coordinate(X: Any) -> Float[Tensor, "n d1"]:
    """Append a column of ones, the input that turns last weight columns into biases.

    Parameters
    ----------
    X : Tensor or array_like of shape (n, d)
        The data.

    Returns
    -------
    Tensor of shape (n, d + 1)
        ``(x_i, 1)`` in each row.

    Raises
    ------
    TypeError, ValueError
        If `X` is not a finite floating-point matrix.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.append_bias_coordinate([[2.0], [3.0]])
    tensor([[2., 1.],
            [3., 1.]], dtype=torch.float64)
    """
    tensor = check_matrix(X)
    return torch.cat([tensor, tensor.new_ones(len(tensor), 1)], dim=1)


def check_two_layer(net: Any, function: str) -> None:
    """Refuse what is not a two-layer network.

    Parameters
    ----------
    net : object
        What was given.
    function : str
        The public function it was given to.

    Raises
    ------
    TypeError
        If `net` is not a `TwoLayerNet`.
    ValueError
        If its parameters contain NaN or infinity.
    """
    if not isinstance(net, TwoLayerNet):
        raise TypeError(f"{function} needs a flattest.TwoLayerNet, not {type(net).__name__}.")
    check_matrix(net.weights, _WEIGHTS)
    check_vector(net.coefficients, _COEFFICIENTS)


def _check_path(path: Any) -> Path:
    """Return a path, refusing what cannot be one."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a path, not {type(path).__name__}.")
    return Path(path)
