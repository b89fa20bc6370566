"""What `symmetries` returns: the scales and groups of a module, in words and in numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from flattest.modules.outputs import Output
from flattest.modules.parameters import kind_of, unwrap
from flattest.modules.symmetry import checking, transforming
from flattest.modules.symmetry.affine_shift import AffineShift
from flattest.modules.symmetry.example import read_example
from flattest.modules.symmetry.layers import Channels, channels_of, main_tensors
from flattest.modules.symmetry.linear_group import LinearGroup
from flattest.modules.symmetry.scaled_tensor import ScaledTensor
from flattest.wording import count

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("layer", "kind", "free", "tied", "frozen", "why frozen")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Symmetries:
    r"""The symmetries of a module: changes of its parameters that no output shows.

    Attributes
    ----------
    n_scales : int
        The number of free log scales z.
    scale_names : list of str
        The channel that each is named after.
    tensors : tuple of ScaledTensor
        How each parameter scales: :math:`\theta_e \exp(y_{out(e)} - y_{into(e)})`, with
        :math:`y = B z`.
    groups : tuple of LinearGroup
        Pairs of factors between which a matrix can be moved.
    frozen : dict of str to str
        The parameter tensors that do not scale, and why.
    dead : dict of str to str
        Scales that move weights on one side only, and why. Their infimum is not attained.
    unknown : dict of str to int
        Operations that flattest has no rule for, and how often they occur. What they touch is
        frozen.
    affine : tuple of AffineShift
        Biases of batch normalisation that shift with the scales, where that was asked for.
    batch_norm : str
        What is done to batch normalisation: ``"keep"``, ``"fold"`` or ``"affine"``.
    folded : tuple of str
        The layers of batch normalisation that were folded.
    unfolded : dict of str to str
        Batch normalisation that could not be folded, and why.
    largest_change : float
        The largest change of an output of the example under random symmetries, in float64 and
        relative to the largest output.
    module : torch.nn.Module
        The module that this is about: the caller's, or the copy in which normalisation is folded.
    output : str, int, callable or None
        Where the logits are in what it returns.
    kinds : dict of str to str
        The class of each of the module's parts.
    ends : dict of str to str
        Why the channels are frozen that a tensor leads to, where some are.
    order : tuple of str
        The parameters in the order in which the graph uses them.

    See Also
    --------
    flattest.symmetries : Finds them.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> found = ft.symmetries(net, torch.ones(4, 2))
    >>> found.n_scales, found.frozen
    (3, {'2.bias': 'the outputs'})
    """

    scale_names: list[str]
    tensors: tuple[ScaledTensor, ...]
    groups: tuple[LinearGroup, ...]
    affine: tuple[AffineShift, ...]
    frozen: dict[str, str]
    dead: dict[str, str]
    unknown: dict[str, int]
    batch_norm: str
    folded: tuple[str, ...]
    unfolded: dict[str, str]
    largest_change: float
    module: nn.Module
    output: Output
    kinds: dict[str, str]
    ends: dict[str, str]
    order: tuple[str, ...]

    @property
    def n_scales(self) -> int:
        """The number of free log scales."""
        return len(self.scale_names)

    def channels(self) -> list[Channels]:
        """Return the channels of each parameter tensor: how many are free, tied and frozen.

        Returns
        -------
        list of Channels
            One entry for each tensor.
        """
        return channels_of(self.tensors, self.kinds, self.ends)

    def layers(self) -> list[Channels]:
        """Return the channels of each layer, in the order in which the graph uses them.

        Returns
        -------
        list of Channels
            For each module that has parameters of its own, those of its largest tensor.
        """
        place = {name: number for number, name in enumerate(self.order)}
        return sorted(
            main_tensors(self.channels()), key=lambda entry: place.get(entry.name, len(place))
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each parameter tensor.

        Returns
        -------
        DataFrame
            With columns `name`, `layer`, `kind`, `shape`; `free`, `tied` and `frozen`, which count
            the channels that the tensor leads to; `scales`, how many free scales move it; and
            `reason`, why channels are frozen.
        """
        import pandas as pd

        return pd.DataFrame(self.channels(), columns=list(Channels._fields))

    def transformed(
        self,
        module: nn.Module | None = None,
        z: Any = None,
        *,
        matrices: Mapping[int, Tensor] | None = None,
        shifts: Mapping[int, Tensor] | None = None,
    ) -> nn.Module:
        """Return a copy of the module with other parameters and the same outputs.

        Parameters
        ----------
        module : torch.nn.Module, optional
            The module, or another one with the same parameters; by default `module`.
        z : array_like of shape (n_scales,), optional
            Log scales, which go first; by default zero.
        matrices : mapping of int to Tensor, optional
            For some groups, by number, the matrix of shape (r, r).
        shifts : mapping of int to Tensor, optional
            For some groups, by number, the translation of shape (r,).

        Returns
        -------
        torch.nn.Module
            Of the same class, dtypes and device.

        Raises
        ------
        ValueError
            If `z` has another length or is not finite, or if there is no such group.
        """
        scales = np.zeros(self.n_scales) if z is None else np.asarray(z, dtype=np.float64)
        if scales.shape != (self.n_scales,):
            raise ValueError(
                f"z has shape {scales.shape}, but the module has {self.n_scales} free scales."
            )
        if not np.isfinite(scales).all():
            raise ValueError("z contains NaN or infinity; log scales must be finite.")
        matrices, shifts = dict(matrices or {}), dict(shifts or {})
        missing = {*matrices, *shifts} - set(range(len(self.groups)))
        if missing:
            raise ValueError(
                f"There is no group {min(missing)}: the module has {len(self.groups)} of them."
            )
        for number, matrix in matrices.items():
            size = self.groups[number].size
            if tuple(matrix.shape) != (size, size):
                raise ValueError(
                    f"The matrix of group {number} has shape {tuple(matrix.shape)}; it must be "
                    f"({size}, {size})."
                )
        return transforming.transformed(
            self.module if module is None else unwrap(module),
            self.tensors,
            self.groups,
            scales,
            matrices,
            shifts,
            self.affine,
        )

    def check(self, X: Any, module: nn.Module | None = None, random_state: int = 0) -> float:
        """Apply random symmetries to a copy of the module, and compare its outputs on real data.

        Parameters
        ----------
        X : Tensor, array_like, dict or tuple
            What the module is called with, as for :func:`flattest.symmetries`.
        module : torch.nn.Module, optional
            The module, or another one with the same parameters; by default `module`.
        random_state : int
            The seed of what is drawn.

        Returns
        -------
        float
            The largest change of an output, in float64 and relative to the largest output.

        Raises
        ------
        ValueError
            If it is above 1e-10. The message names the tensors to blame.
        """
        model = self.module if module is None else unwrap(module)
        batch = read_example(kind_of(model), X, "X")
        return checking.check(
            model, batch, self.output, self.tensors, self.groups, self.affine, random_state
        )

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for entry in self.layers():
            numbers = (entry.free, entry.tied, entry.frozen)
            texts = tuple(f"{number:,}" if number else "" for number in numbers)
            rows.append((entry.layer or entry.name, entry.kind, *texts, entry.reason))
        return rows

    def _notes(self) -> list[str]:
        """Say in lines what stands below the table."""
        notes = [f"{count(self.n_scales, 'free scale')}, batch norm {_MODES[self.batch_norm]}"]
        if self.groups:
            sizes = sorted({(g.kind.name.lower(), g.size) for g in self.groups})
            kinds = ", ".join(f"{kind} of size {size}" for kind, size in sizes)
            notes.append(f"{count(len(self.groups), 'linear group')}: {kinds}")
        if self.dead:
            first = next(iter(self.dead.items()))
            notes.append(f"{count(len(self.dead), 'dead scale')}, such as {first[0]}: {first[1]}")
        for name, why in self.unfolded.items():
            notes.append(f"{name} is not folded: {why}")
        if self.unknown:
            names = ", ".join(f"{name} ({times})" for name, times in self.unknown.items())
            notes.append(f"operations without a rule, frozen: {names}")
        notes.append(f"checked on the example: outputs change by {self.largest_change:.1e}")
        return notes

    def __repr__(self) -> str:
        """Print a table with a line for each layer."""
        rows = [_COLUMNS, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = [type(self).__name__]
        for row in rows:
            cells = [
                text.rjust(width) if column in (2, 3, 4) else text.ljust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self._notes())])

    def _repr_html_(self) -> str:
        """Show the same table in a notebook."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
            for row in self._rows()
        )
        notes = "<br>".join(html.escape(note) for note in self._notes())
        return (
            f"<table><caption>{type(self).__name__}: {notes}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


_MODES = {"keep": "kept", "fold": "folded", "affine": "kept, with the affine freedom of its bias"}
