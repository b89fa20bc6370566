"""The result of a measurement: figures, how each came about, and the figures layer by layer.

Results only. What is measured, and how, is up to the packages for each kind of network; a kind that
knows more than the general figures derives a result of its own from `Flatness`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from flattest._version import __version__
from flattest.files import write_file
from flattest.wording import count

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


class Provenance(NamedTuple):
    """How a figure came about.

    Parameters
    ----------
    exact : bool
        Whether it is the value of a formula that is proved for the case at hand, up to rounding.
    why : str
        The formula, or the estimator and why it was needed.
    standard_error : float or None
        That of an estimate; None for what is exact.

    Examples
    --------
    >>> from flattest.flatness import Provenance
    >>> Provenance(exact=False, why="ten probes", standard_error=0.5).mark
    '± 0.5'
    """

    exact: bool
    why: str
    standard_error: float | None = None

    @property
    def mark(self) -> str:
        """What is printed beside the figure."""
        if self.exact:
            return "exact"
        return "estimate" if self.standard_error is None else f"± {self.standard_error:.2g}"


NOT_MEASURED = Provenance(exact=False, why="not measured")
"""Of a figure that is NaN because nobody computed it; it is left out of tables."""


class LayerFlatness(NamedTuple):
    """The part of one parameter tensor in the trace.

    Parameters
    ----------
    name : str
        As in ``named_parameters()``.
    shape : tuple of int
        Its shape.
    n_parameters : int
        The number of its entries.
    trace, gauss_newton, residual : float
        The sums over its entries of the diagonal of the Hessian, and of its two parts.
    exact : bool
        Whether these are exact.
    standard_error : float or None
        That of `trace`, or of `gauss_newton` where no trace was measured; None for exact ones.
    kind : str
        The class of the module that owns it.
    squared_norm : float
        The sum of the squares of its entries.
    adaptive : float
        The sum over its entries of their squares times the Gauss-Newton diagonal.
    unused : bool
        Whether no output depends on it.
    frozen : bool
        Whether the caller's model has it without gradient.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0]], [3.0]).layers[0].trace
    4.5
    """

    name: str
    shape: tuple[int, ...]
    n_parameters: int
    trace: float
    gauss_newton: float
    residual: float
    exact: bool
    standard_error: float | None = None
    kind: str = ""
    squared_norm: float = math.nan
    adaptive: float = math.nan
    unused: bool = False
    frozen: bool = False


class Row(NamedTuple):
    """One line of a result's table: a label, its indentation, the value and what marks it."""

    label: str
    level: int
    value: float
    mark: str


@dataclass(frozen=True, repr=False, kw_only=True)
class Flatness:
    """The flatness of a network on data: the trace of the Hessian of its training loss.

    Parameters
    ----------
    loss : float
        The loss.
    trace : float
        Trace of the Hessian of the loss in all parameters: `gauss_newton` + `residual`.
    gauss_newton : float
        Trace of the Gauss-Newton matrix ``sum J^T (d**2 loss / d outputs**2) J``.
    residual : float
        The rest, the curvature of the outputs weighed by the slopes of the loss.
    orbit_minimum : float
        The smallest `gauss_newton` among all networks that a symmetry makes of this one, which all
        compute the same function.
    n_samples : int
        The number of samples.
    n_parameters : int
        The number of parameters that the trace runs over.
    layers : tuple of LayerFlatness
        The same for each parameter tensor; `per_layer` is their table.
    provenance : mapping of str to Provenance
        For each figure by its name: whether it is exact, why, and otherwise its standard error.
    dtype, device : str
        Of the network.
    version : str
        The version of flattest.
    adaptive : float
        The Gauss-Newton diagonal weighed by the squares of the parameters, ``sum_k theta_k**2
        G_kk``: the curvature under noise relative to each parameter's size (Kwon et al. 2021,
        Tsuzuku et al. 2020). Rescaling neurons of ReLU networks leaves it alone.
    n_left_out : int
        The number of the model's parameters that the trace does not run over.
    diagonals : mapping of str to Tensor, or None
        What `diagonal` returns.

    See Also
    --------
    flattest.TwoLayerFlatness : With the figures that only two-layer networks have.

    References
    ----------
    J. Kwon, J. Kim, H. Park, I. Choi, "ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks", ICML 2021.

    Y. Tsuzuku, I. Sato, M. Sugiyama, "Normalized Flat Minima: Exploring Scale Invariant Definition
    of Flat Minima for Neural Networks Using PAC-Bayesian Analysis", ICML 2020.

    Examples
    --------
    >>> import flattest as ft
    >>> flatness = ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0]], [3.0])
    >>> isinstance(flatness, ft.Flatness), flatness.trace, flatness.standard_error
    (True, 76.5, {})
    """

    loss: float
    trace: float
    gauss_newton: float
    residual: float
    orbit_minimum: float
    n_samples: int
    n_parameters: int
    layers: tuple[LayerFlatness, ...]
    provenance: Mapping[str, Provenance] = field(compare=False)
    dtype: str
    device: str
    version: str = __version__
    adaptive: float = math.nan
    n_left_out: int = 0
    diagonals: Mapping[str, Tensor] | None = field(default=None, compare=False)

    # The figures in the order of the table: name, label, indentation.
    _figures: ClassVar[tuple[tuple[str, str, int], ...]] = (
        ("trace", "trace of the Hessian", 0),
        ("gauss_newton", "Gauss-Newton part", 1),
        ("residual", "residual part", 1),
        ("orbit_minimum", "orbit minimum", 0),
        ("adaptive", "adaptive flatness", 0),
        ("loss", "loss", 0),
    )

    @property
    def standard_error(self) -> dict[str, float]:
        """The standard error of each figure that is not exact, by its name."""
        return {
            name: entry.standard_error
            for name, entry in self.provenance.items()
            if entry.standard_error is not None
        }

    @property
    def per_layer(self) -> pd.DataFrame:
        """One row for each parameter tensor: the fields of `LayerFlatness`, and what follows.

        `share` is the part in the trace, `trace_per_parameter` the trace over the number of
        parameters, `relative_trace` that times the squared norm, which a uniform rescaling of the
        tensor leaves alone. All three are NaN where the trace is not measured.
        """
        import pandas as pd

        frame = pd.DataFrame(self.layers, columns=list(LayerFlatness._fields))
        frame["share"] = frame["trace"] / self.trace
        frame["trace_per_parameter"] = frame["trace"] / frame["n_parameters"]
        frame["relative_trace"] = frame["trace_per_parameter"] * frame["squared_norm"]
        return frame

    def diagonal(self) -> dict[str, Tensor]:
        """Return the diagonal of the Gauss-Newton matrix.

        Returns
        -------
        dict of str to Tensor
            A float64 tensor of its shape for each parameter, by name.

        Raises
        ------
        ValueError
            If the measurement did not keep it: that of two-layer networks sums over neurons.

        Examples
        --------
        >>> import torch, flattest as ft
        >>> line = torch.nn.Linear(1, 1, bias=False).double()
        >>> ft.measure(line, [[1.0], [3.0]], [0.0, 0.0]).diagonal()
        {'weight': tensor([[10.]], dtype=torch.float64)}
        """
        if self.diagonals is None:
            raise ValueError("This measurement kept no diagonal; only those of other modules do.")
        return dict(self.diagonals)

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write the table per layer as comma-separated values.

        Parameters
        ----------
        path : str or Path, optional
            The file; left out, the text is returned.

        Returns
        -------
        str or None
            The text, where no file is given.

        Examples
        --------
        >>> import flattest as ft
        >>> flatness = ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0]], [3.0])
        >>> flatness.to_csv().splitlines()[1][:25]
        'weights,"(1, 1)",1,4.5,4.'
        """
        text = self.per_layer.to_csv(index=False)
        if path is None:
            return text
        write_file(Path(path), text)
        return None

    def rows(self) -> list[Row]:
        """List the figures as they are shown: in the terminal, in notebooks and by ``print``.

        Returns
        -------
        list of Row
            Label, indentation, value, and ``"exact"`` or the standard error.

        Examples
        --------
        >>> import flattest as ft
        >>> flatness = ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0]], [3.0])
        >>> flatness.rows()[1]
        Row(label='Gauss-Newton part', level=1, value=76.5, mark='exact')
        """
        rows: list[Row] = []
        for name, label, level in self._figures:
            value, entry = getattr(self, name), self.provenance.get(name)
            if math.isnan(value) and not (entry and entry.exact):
                continue  # not measured: never a part under the name of the whole
            depth = min(level, rows[-1].level + 1) if rows else 0
            rows.append(Row(label, depth, value, self._mark(name)))
        return rows

    def _mark(self, name: str) -> str:
        """Call a figure exact only where that is known of it."""
        entry = self.provenance.get(name)
        return entry.mark if entry else ""

    def _scope(self) -> str:
        """Say in a line what was measured, for below the table."""
        left_out = f" ({self.n_left_out:,} more left out)" if self.n_left_out else ""
        return (
            f"{count(self.n_samples, 'sample')}, {count(self.n_parameters, 'parameter')}"
            f"{left_out}, {self.dtype} on {self.device}"
        )

    def __repr__(self) -> str:
        """Print a small table."""
        lines = [type(self).__name__]
        for label, level, value, mark in self.rows():
            lines.append(f"  {'  ' * level + label:<25} {value:>12.6g}  {mark}".rstrip())
        return "\n".join([*lines, f"  {self._scope()}"])

    def _repr_html_(self) -> str:
        """Show the same table in a notebook."""
        body = "".join(
            f'<tr><td style="text-align: left; padding-left: {1 + level}em">{html.escape(label)}'
            f"</td><td>{value:.6g}</td><td>{html.escape(mark)}</td></tr>"
            for label, level, value, mark in self.rows()
        )
        head = f"<caption>{type(self).__name__}: {html.escape(self._scope())}</caption>"
        return f"<table>{head}<tbody>{body}</tbody></table>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and lists, ready for ``json.dumps``.

        Returns
        -------
        dict
            One entry per field but `diagonals`; `layers` is a list of dictionaries, `provenance` a
            dictionary of them. Numbers that are not finite become None, since JSON has no word for
            them.

        Examples
        --------
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet([[2.0]], [0.5], "relu")
        >>> ft.measure(net, [[3.0]], [3.0]).to_dict()["provenance"]["loss"]["exact"]
        True
        """
        names = [f.name for f in fields(self) if f.name != "diagonals"]
        values = {name: plain(getattr(self, name)) for name in names}
        values["layers"] = [plain(layer._asdict()) for layer in self.layers]
        values["provenance"] = {
            name: plain(entry._asdict()) for name, entry in self.provenance.items()
        }
        return values


def plain(value: Any) -> Any:
    """Return what JSON can hold: None for numbers that are not finite, lists for tuples.

    Parameters
    ----------
    value : object
        A number, a string, or tuples, lists and dictionaries of them.

    Returns
    -------
    object
        The same in JSON's types.

    Examples
    --------
    >>> from flattest.flatness import plain
    >>> plain({"shape": (1, 2), "ratio": float("nan")})
    {'shape': [1, 2], 'ratio': None}
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
