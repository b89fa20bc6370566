"""The result of a measurement: figures, how each came about, and the figures layer by layer.

Results only. What is measured, and how, is up to the packages for each kind of network; a kind that
knows more than the general figures derives a result of its own from `Flatness`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from flattest._version import __version__
from flattest.files import write_file
from flattest.orbit import Orbit
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
    relative_flatness : float
        For the weight W of a linear layer or a convolution, with one row per output, the sum over
        pairs of rows of ``<w_s, w_t> tr G_st`` with the blocks ``G_st`` of the Gauss-Newton matrix
        (Petzka et al. 2021). Scaling a layer up and the next one down leaves it alone, and so does
        scaling single rows, but what that does to the next layer's columns changes that of the next
        layer. NaN for other tensors, and unless it was asked for.
    at_minimum : float
        `gauss_newton` of this tensor in the network that attains the orbit minimum; NaN unless that
        was asked for.

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
    relative_flatness: float = math.nan
    at_minimum: float = math.nan


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
    fisher_rao : float
        The Fisher-Rao norm ``theta^T G theta``, with the expectation over the model's own labels
        (Liang et al. 2019). No rescaling changes it. NaN unless it was asked for.
    largest_eigenvalue : float
        That of the Hessian or of the Gauss-Newton matrix, as asked for; its `provenance` says of
        which. Rescaling changes it.
    loss_name : str
        The loss.
    normaliser : float
        What the loss's sum over samples was divided by: the number of samples, the sum of their
        class weights; 1 for a sum, NaN for a function, which does not tell. Parts of a data set are
        merged by it.
    summed : bool
        Whether the loss is a sum, which is divided by nothing.
    partial : bool
        Whether the measurement was interrupted, so that these are the figures of its first samples.
    orbit : Orbit or None
        What else is known of the orbit minimum of a module: its certificate, whether it is
        attained, and over which symmetries it is.
    diagonals : mapping of str to Tensor, or None
        What `diagonal` returns.

    See Also
    --------
    flattest.TwoLayerFlatness : With the figures that only two-layer networks have.

    References
    ----------
    J. Kwon, J. Kim, H. Park, I. Choi, "ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks", ICML 2021.

    T. Liang, T. Poggio, A. Rakhlin, J. Stokes, "Fisher-Rao Metric, Geometry, and Complexity of
    Neural Networks", AISTATS 2019.

    H. Petzka, M. Kamp, L. Adilova, C. Sminchisescu, M. Boley, "Relative Flatness and
    Generalization", NeurIPS 2021.

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
    fisher_rao: float = math.nan
    largest_eigenvalue: float = math.nan
    loss_name: str = ""
    normaliser: float = math.nan
    summed: bool = False
    partial: bool = False
    orbit: Orbit | None = None
    diagonals: Mapping[str, Tensor] | None = field(default=None, compare=False)

    # The figures in the order of the table: name, label, indentation.
    _figures: ClassVar[tuple[tuple[str, str, int], ...]] = (
        ("trace", "trace of the Hessian", 0),
        ("gauss_newton", "Gauss-Newton part", 1),
        ("residual", "residual part", 1),
        ("orbit_minimum", "orbit minimum", 0),
        ("adaptive", "adaptive flatness", 0),
        ("fisher_rao", "Fisher-Rao norm", 0),
        ("largest_eigenvalue", "largest eigenvalue", 0),
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

    @staticmethod
    def merge(parts: Iterable[Flatness], *, weights: Sequence[float] | None = None) -> Flatness:
        r"""Join the measurements of parts of a data set, made one after another or in parallel.

        With the normalisers ``N_k`` of the loss on the parts (the numbers of samples, for a mean),
        every figure that is a mean over samples becomes :math:`\sum_k N_k v_k / \sum_k N_k`, and
        its standard error the root of :math:`\sum_k (N_k e_k)^2` over the same. The result is that
        of one measurement of all the data.

        Parameters
        ----------
        parts : iterable of Flatness
            Measurements of one model, with one loss and one choice of parameters, on different
            samples. Where columns or probes are drawn, give each a `random_state` of its own:
            errors that were drawn alike do not average out as the standard error says.
        weights : sequence of float, optional
            What to multiply the figures of each part with. By default ``N_k / sum N``, or 1 for a
            loss that is a sum; to be given for losses that are functions, whose normaliser is not
            known: for a mean over tokens, each part's share of the tokens.

        Returns
        -------
        Flatness
            The figures of all samples together. The largest eigenvalue is left out, since those of
            parts do not say what it is; the diagonal is there if all parts have it.

        Raises
        ------
        TypeError
            If a part is no `Flatness`, or that of a two-layer network, whose orbit minimum and
            bounds are no means over samples: measure these in one call, on an iterable of batches.
        ValueError
            If there is no part, the parts are of different models, losses or parameters, or the
            normaliser of the loss is not known.

        Examples
        --------
        >>> import torch, flattest as ft
        >>> line = torch.nn.Linear(1, 1, bias=False).double()
        >>> parts = [ft.measure(line, [[1.0], [3.0]], [0.0, 0.0]), ft.measure(line, [[2.0]], [1.0])]
        >>> whole = ft.Flatness.merge(parts)
        >>> whole.n_samples, round(whole.trace, 12)  # 2 (1 + 9 + 4) / 3
        (3, 9.333333333333)
        """
        found = list(parts)
        _refuse_what_differs(found)
        first = found[0]
        sizes = [part.normaliser for part in found]
        weights = _weights(found) if weights is None else _checked_weights(weights, len(found))
        provenance = {
            name: _merged_provenance([part.provenance.get(name) for part in found], weights)
            for name in first.provenance
        }
        if not math.isnan(first.largest_eigenvalue):
            provenance["largest_eigenvalue"] = NOT_MEASURED._replace(why=_NOT_OF_PARTS)
        if first.orbit is not None:
            provenance["orbit_minimum"] = NOT_MEASURED._replace(why=_NOT_OF_PARTS)
        means: dict[str, Any] = {
            name: _mean([getattr(part, name) for part in found], weights) for name in _MEANS
        }
        return replace(
            first,
            **means,
            n_samples=sum(part.n_samples for part in found),
            layers=tuple(
                _merged_layer(list(entries), weights)
                for entries in zip(*(part.layers for part in found), strict=True)
            ),
            provenance=provenance,
            device=" and ".join(dict.fromkeys(part.device for part in found)),
            version=__version__,
            largest_eigenvalue=math.nan,
            orbit_minimum=math.nan,
            orbit=None,
            normaliser=1.0 if first.summed else math.fsum(sizes),
            partial=any(part.partial for part in found),
            diagonals=_merged_diagonals(found, weights),
        )

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
            if name == "orbit_minimum" and self.orbit is not None:
                mark = "" if self.orbit.attained else "not attained"
                rows.append(Row("Gauss-Newton part over it", depth + 1, self.orbit.ratio, mark))
        return rows

    def _mark(self, name: str) -> str:
        """Call a figure exact only where that is known of it."""
        entry = self.provenance.get(name)
        return entry.mark if entry else ""

    @property
    def scope(self) -> str:
        """What was measured, in a line, for below the table."""
        left_out = f" ({self.n_left_out:,} more left out)" if self.n_left_out else ""
        so_far = " before it was interrupted" if self.partial else ""
        return (
            f"{count(self.n_samples, 'sample')}{so_far}, {count(self.n_parameters, 'parameter')}"
            f"{left_out}, {self.dtype} on {self.device}"
        )

    def __repr__(self) -> str:
        """Print a small table."""
        lines = [type(self).__name__]
        for label, level, value, mark in self.rows():
            lines.append(f"  {'  ' * level + label:<25} {value:>12.6g}  {mark}".rstrip())
        return "\n".join([*lines, f"  {self.scope}"])

    def _repr_html_(self) -> str:
        """Show the same table in a notebook."""
        body = "".join(
            f'<tr><td style="text-align: left; padding-left: {1 + level}em">{html.escape(label)}'
            f"</td><td>{value:.6g}</td><td>{html.escape(mark)}</td></tr>"
            for label, level, value, mark in self.rows()
        )
        head = f"<caption>{type(self).__name__}: {html.escape(self.scope)}</caption>"
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
        values["orbit"] = None if self.orbit is None else plain(self.orbit._asdict())
        values["layers"] = [plain(layer._asdict()) for layer in self.layers]
        values["provenance"] = {
            name: plain(entry._asdict()) for name, entry in self.provenance.items()
        }
        return values


_NOT_OF_PARTS = "not measured: those of parts do not say what it is"
_MEANS = ("loss", "trace", "gauss_newton", "residual", "adaptive", "fisher_rao")
_LAYER_MEANS = ("trace", "gauss_newton", "residual", "adaptive", "relative_flatness")
_SAME_WEIGHTS = 1e-5  # of a tensor's squared norm, up to which two devices' sums may differ


def _refuse_what_differs(parts: list[Flatness]) -> None:
    """Refuse measurements that are not of parts of one data set."""
    if not parts:
        raise ValueError("parts must hold at least one Flatness.")
    for position, part in enumerate(parts):
        if type(part) is not Flatness:
            raise TypeError(
                f"parts[{position}] is of type {type(part).__name__}; only the Flatness of a "
                "module can be merged, so measure the network in one call, on all batches."
            )
        for name, what in _ALIKE.items():
            one, other = getattr(parts[0], name), getattr(part, name)
            if one != other:
                raise ValueError(
                    f"parts[{position}] has {what} {other}, but parts[0] has {one}; "
                    "merge measurements of one model with one loss."
                )
        if [(x.name, x.shape) for x in part.layers] != [(x.name, x.shape) for x in parts[0].layers]:
            raise ValueError(
                f"parts[{position}] is of other parameters than parts[0]; "
                "merge measurements of one model, with the same parameters."
            )
        for mine, theirs in zip(parts[0].layers, part.layers, strict=True):
            if not math.isclose(mine.squared_norm, theirs.squared_norm, rel_tol=_SAME_WEIGHTS):
                raise ValueError(
                    f"parts[{position}] was measured with another {mine.name} than parts[0]: its "
                    f"squared norm is {theirs.squared_norm:g}, not {mine.squared_norm:g}."
                )


def _weights(parts: list[Flatness]) -> list[float]:
    if parts[0].summed:
        return [1.0] * len(parts)
    sizes = [part.normaliser for part in parts]
    if any(math.isnan(size) for size in sizes):
        raise ValueError(
            f"What the loss {parts[0].loss_name} is divided by is not known; give weights=, such "
            "as each part's share of the samples, or the loss by name or as a torch.nn loss."
        )
    return [size / math.fsum(sizes) for size in sizes]


def _checked_weights(weights: Sequence[float], n_parts: int) -> list[float]:
    checked = [float(weight) for weight in weights]
    if len(checked) != n_parts or not all(0 <= weight < math.inf for weight in checked):
        raise ValueError(f"weights must be {n_parts} numbers of at least 0, one for each part.")
    return checked


_ALIKE = {
    "loss_name": "the loss",
    "summed": "summed",
    "dtype": "the dtype",
    "n_parameters": "the number of parameters",
}
"""What merged measurements have in common, and what it is called."""


def _mean(values: list[float], weights: list[float]) -> float:
    return math.fsum(w * v for w, v in zip(weights, values, strict=True))


def _in_quadrature(
    entries: Sequence[Provenance | LayerFlatness], weights: list[float]
) -> float | None:
    """Return the standard error of a weighted sum; None where all is exact, or one is unknown."""
    if any(not entry.exact and entry.standard_error is None for entry in entries):
        return None
    errors = [entry.standard_error or 0.0 for entry in entries]
    total = math.hypot(*(w * e for w, e in zip(weights, errors, strict=True)))
    return None if all(entry.exact for entry in entries) else total


def _merged_provenance(entries: list[Provenance | None], weights: list[float]) -> Provenance:
    known = [NOT_MEASURED if entry is None else entry for entry in entries]
    return Provenance(
        exact=all(entry.exact for entry in known),
        why="; ".join(dict.fromkeys(entry.why for entry in known)),
        standard_error=_in_quadrature(known, weights),
    )


def _merged_layer(entries: list[LayerFlatness], weights: list[float]) -> LayerFlatness:
    means: dict[str, Any] = {
        name: _mean([getattr(entry, name) for entry in entries], weights) for name in _LAYER_MEANS
    }
    return entries[0]._replace(
        **means,
        exact=all(entry.exact for entry in entries),
        standard_error=_in_quadrature(entries, weights),
        unused=all(entry.unused for entry in entries),
        at_minimum=math.nan,
    )


def _merged_diagonals(parts: list[Flatness], weights: list[float]) -> dict[str, Tensor] | None:
    """Add the diagonals up on the device of the first, if all parts have theirs."""
    known = [part.diagonals for part in parts if part.diagonals is not None]
    if len(known) < len(parts):
        return None
    merged = {name: weights[0] * values for name, values in known[0].items()}
    for weight, diagonals in zip(weights[1:], known[1:], strict=True):
        for name, values in diagonals.items():
            merged[name] += weight * values.to(merged[name].device)
    return merged


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
