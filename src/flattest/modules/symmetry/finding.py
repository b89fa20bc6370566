"""The way from a module and an example of its inputs to its symmetries."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from flattest.modules.data import Batch, Kind
from flattest.modules.guards import measuring, refuse_training_mode
from flattest.modules.outputs import Output, check_output
from flattest.modules.parameters import choose, kind_of, unwrap
from flattest.modules.symmetry.assembly import assemble
from flattest.modules.symmetry.batch_norm import Folding, fold
from flattest.modules.symmetry.checking import check, holding
from flattest.modules.symmetry.coordinates import Coordinates
from flattest.modules.symmetry.dead_scales import dead_scales
from flattest.modules.symmetry.example import read_example
from flattest.modules.symmetry.linear_pairs import linear_groups
from flattest.modules.symmetry.propagation import propagate
from flattest.modules.symmetry.result import Symmetries
from flattest.modules.symmetry.tracing import FRONT_ENDS, trace
from flattest.modules.trees import leaves

BATCH_NORM = ("keep", "fold", "affine")


def symmetries(
    module: nn.Module,
    example: Any,
    *,
    output: Any = None,
    batch_norm: str = "keep",
) -> Symmetries:
    r"""Find the symmetries of a module: changes of its parameters that no output shows.

    Where all that lies between two layers is positively homogeneous, as ReLU, pools and sums are,
    each channel can be scaled up on one side and down on the other: a weight from channel i to
    channel o becomes :math:`w\, e^{y_o - y_i}`. The module is traced into elementary operations,
    each of which demands something of the scales :math:`y`, and the demands are solved exactly.
    Where nothing but linear maps lie between two factors, as between values and output projection
    of an attention head, any invertible matrix can be moved between them.

    Parameters
    ----------
    module : torch.nn.Module
        The module, in evaluation mode. It comes back as it was. Parameters that do not require
        gradients do not scale.
    example : Tensor, array_like, tuple or dict
        What the module is called with: one argument, several in a tuple, or named ones in a
        dictionary. The symmetries hold for inputs of other sizes as far as the module does the
        same with them; `Symmetries.check` tests it.
    output : str, int or callable, optional
        Where the logits are in what the module returns, if that is no tensor. By default
        ``logits``. What else it returns is left out of account.
    batch_norm : {"keep", "fold", "affine"}
        Batch normalisation stays, with its gain and bias as parameters; or it is folded into the
        layer before it, on a copy, where nothing else sees that layer; or it stays, and its input
        scales as well, while its bias makes up for the running means (`AffineShift`). Then what the
        gain's gradients become is no multiple of what they were.

    Returns
    -------
    Symmetries
        The scales and groups, with a table for each layer.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type or value, if the module cannot be traced, or if a symmetry
        does not hold on the example: random scales and matrices are applied to a copy of the
        module in float64, and the outputs must agree to 1e-10.

    See Also
    --------
    flattest.balance : The flattest module that the symmetries make of one.

    References
    ----------
    B. Neyshabur, R. Salakhutdinov, N. Srebro, "Path-SGD: Path-Normalized Optimization in Deep
    Neural Networks", NeurIPS 2015.

    L. Dinh, R. Pascanu, S. Bengio, Y. Bengio, "Sharp Minima Can Generalize For Deep Nets", ICML
    2017.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> found = ft.symmetries(net, torch.ones(4, 2))
    >>> found.n_scales, found.scale_names
    (3, ['0.weight[0]', '0.weight[1]', '0.weight[2]'])
    """
    return find(module, example, output, batch_norm, FRONT_ENDS)


def find(
    module: nn.Module, example: Any, output: Any, batch_norm: str, front_ends: tuple[str, ...]
) -> Symmetries:
    """Do what `symmetries` does, with a choice of how the module is traced."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm must be 'keep', 'fold' or 'affine', not {batch_norm!r}.")
    where: Output = check_output(output)
    model = unwrap(module)
    kind = kind_of(model)
    refuse_training_mode(model)
    _refuse_frozen(model)
    batch = read_example(kind, example, "example")
    folding = Folding(model, (), {})
    if batch_norm == "fold":
        with _prepared(model, kind) as traced:
            folding = fold(model, trace(traced, _some(batch), where, front_ends))
        model = folding.module
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    with _prepared(model, kind) as traced:
        graph = trace(traced, _some(batch), where, front_ends)
        found = propagate(graph, trainable, affine=batch_norm == "affine")
        walked = Coordinates(graph.graph.graph, found, found.walk.forms.shapes)
        groups = linear_groups(walked.ledger, trainable - found.walk.forms.reused)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    scales = assemble(found.walk, shapes, set(shapes) - trainable)
    groups = holding(model, batch, where, scales.tensors, groups)
    changed = check(model, batch, where, scales.tensors, groups, scales.affine)
    return Symmetries(
        scale_names=scales.names,
        tensors=scales.tensors,
        groups=groups,
        affine=scales.affine,
        frozen=scales.reasons,
        dead=dead_scales(scales.tensors, dict(model.named_parameters()), scales.names),
        unknown=found.unknown,
        batch_norm=batch_norm,
        folded=folding.folded,
        unfolded=folding.unfolded,
        largest_change=changed,
        module=model,
        output=where,
        ends=scales.ends,
        order=tuple(found.walk.forms.pieces),
        kinds={name: type(part).__name__ for name, part in model.named_modules()},
    )


@contextlib.contextmanager
def _prepared(model: nn.Module, kind: Kind) -> Iterator[nn.Module]:
    """Put a module, or a copy in single precision of one in half, into a state to be traced."""
    traced = copy.deepcopy(model).to(kind.dtype) if kind.converted else model
    with measuring(traced, choose(traced, "all")), torch.no_grad():
        yield traced


def _refuse_frozen(model: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "The model has no trainable parameters: all have requires_grad=False; "
            "use model.requires_grad_() first."
        )


def _some(batch: Batch) -> Batch:
    """Take two samples of a large example, which show as much as all."""
    size = sum(leaf.numel() for leaf in _tensors(batch))
    if batch.n_samples <= 2 or size <= _LARGE:
        return batch
    args, kwargs = batch.inputs(slice(0, 2))
    return Batch(args, kwargs, None, 2)


_LARGE = 200_000


def _tensors(batch: Batch) -> list[torch.Tensor]:
    return [
        leaf for leaf in leaves([list(batch.args), batch.kwargs]) if isinstance(leaf, torch.Tensor)
    ]
