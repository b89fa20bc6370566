"""One line per kind of autograd node: in which of its arguments it is not piecewise linear.

The names are those that PyTorch gives its own nodes, without ``Backward`` and the digits after it.
A kind that is not in the table counts as nonlinear in everything, so the table can be incomplete
without being wrong; what is in it must be right for every option of the operation, including
options that are seen only at run time, for which `rule_of` looks at the node.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from torch.autograd.function import BackwardCFunction

_NATIVE = re.compile(r"(\w+?)Backward\d+$")
_WITHOUT_DIGIT = {"CopyBackwards": "Copy"}
_BATCH_NORMS = {"CudnnBatchNorm", "NativeBatchNorm"}
ON_CUDA_ONLY = {"CudnnBatchNorm", "FusedRmsNorm", "ScaledDotProductEfficientAttention"}
"""Kinds that no computation on the CPU has, for the tests."""


class Rule(NamedTuple):
    """Where a node stands in the way of linearity.

    Parameters
    ----------
    reason : str
        What the node does, as a phrase for messages.
    products : tuple of pairs of int
        Arguments that are multiplied: nonlinear in what both depend on.
    curved : tuple of int
        Arguments in which the node is nonlinear; what they share with others is included.
    known : bool
        Whether the kind of node has a line in the table.
    opaque : bool
        Whether it may use parameters that autograd does not see.

    Notes
    -----
    Arguments are counted as autograd counts them, in ``next_functions``.
    """

    reason: str
    products: tuple[tuple[int, int], ...] = ()
    curved: tuple[int, ...] | None = ()
    known: bool = True
    opaque: bool = False


def _linear(reason: str = "linear") -> Rule:
    return Rule(reason)


def _pieces(reason: str = "piecewise linear") -> Rule:
    return Rule(reason)


def _product(*pairs: tuple[int, int], reason: str = "a product") -> Rule:
    return Rule(reason, products=pairs)


def _curved(*arguments: int, reason: str) -> Rule:
    return Rule(reason, curved=arguments)


def _smooth(reason: str) -> Rule:
    return Rule(reason, curved=None)


RULES: dict[str, Rule] = {
    # Sums and multiples by constants.
    "Add": _linear("a sum"),
    "Sub": _linear("a difference"),
    "Rsub": _linear("a difference"),
    "Neg": _linear("a change of sign"),
    "Sum": _linear("a sum over entries"),
    "Mean": _linear("a mean over entries"),
    "Nansum": _linear("a sum over entries"),
    "Cumsum": _linear("a running sum"),
    "Trace": _linear("a sum of diagonal entries"),
    "NativeDropout": _linear("a mask drawn at random, a constant once drawn"),
    # Entries moved, copied, selected, repeated or padded.
    "Alias": _linear("a view"),
    "AsStrided": _linear("a view"),
    "Expand": _linear("a view"),
    "Permute": _linear("a view"),
    "ReshapeAlias": _linear("a view"),
    "Squeeze": _linear("a view"),
    "T": _linear("a view"),
    "Transpose": _linear("a view"),
    "UnsafeView": _linear("a view"),
    "Unsqueeze": _linear("a view"),
    "View": _linear("a view"),
    "Unfold": _linear("overlapping views"),
    "Diagonal": _linear("a selection"),
    "Gather": _linear("a selection"),
    "Index": _linear("a selection"),
    "IndexSelect": _linear("a selection"),
    "MaskedSelect": _linear("a selection"),
    "Select": _linear("a selection"),
    "Slice": _linear("a selection"),
    "Take": _linear("a selection"),
    "Tril": _linear("a selection"),
    "Triu": _linear("a selection"),
    "Split": _linear("parts"),
    "SplitWithSizes": _linear("parts"),
    "UnsafeSplit": _linear("parts"),
    "Unbind": _linear("parts"),
    "Cat": _linear("a concatenation"),
    "Stack": _linear("a concatenation"),
    "Clone": _linear("a copy"),
    "Copy": _linear("a copy"),
    "ToCopy": _linear("a copy of another type or on another device"),
    "DiagEmbed": _linear("entries placed on a diagonal"),
    "Flip": _linear("entries in another order"),
    "Repeat": _linear("repeated entries"),
    "Roll": _linear("entries in another order"),
    "PixelShuffle": _linear("entries in another order"),
    "PixelUnshuffle": _linear("entries in another order"),
    "ChannelShuffle": _linear("entries in another order"),
    "IndexAdd": _linear("entries added at given places"),
    "IndexCopy": _linear("entries written at given places"),
    "IndexFill": _linear("entries overwritten at given places"),
    "IndexPut": _linear("entries written at given places"),
    "MaskedFill": _linear("entries overwritten at given places"),
    "MaskedScatter": _linear("entries written at given places"),
    "Scatter": _linear("entries written at given places"),
    "ScatterAdd": _linear("entries added at given places"),
    "SelectScatter": _linear("entries written at given places"),
    "SliceScatter": _linear("entries written at given places"),
    "Fill": _linear("entries overwritten"),
    "Zero": _linear("entries overwritten with zero"),
    "ConstantPadNd": _linear("padding"),
    "ReflectionPad1D": _linear("padding"),
    "ReflectionPad2D": _linear("padding"),
    "ReflectionPad3D": _linear("padding"),
    "ReplicationPad1D": _linear("padding"),
    "ReplicationPad2D": _linear("padding"),
    "ReplicationPad3D": _linear("padding"),
    "Im2Col": _linear("patches"),
    "Col2Im": _linear("patches added up"),
    "Embedding": _linear("rows looked up"),
    # Fixed linear maps.
    "AdaptiveAvgPool2D": _linear("average pooling"),
    "AdaptiveAvgPool3D": _linear("average pooling"),
    "AvgPool2D": _linear("average pooling"),
    "AvgPool3D": _linear("average pooling"),
    "UpsampleBicubic2D": _linear("interpolation with fixed weights"),
    "UpsampleBilinear2D": _linear("interpolation with fixed weights"),
    "UpsampleLinear1D": _linear("interpolation with fixed weights"),
    "UpsampleNearest1D": _linear("nearest neighbours"),
    "UpsampleNearest2D": _linear("nearest neighbours"),
    "UpsampleNearest3D": _linear("nearest neighbours"),
    "UpsampleNearestExact1D": _linear("nearest neighbours"),
    "UpsampleNearestExact2D": _linear("nearest neighbours"),
    "UpsampleNearestExact3D": _linear("nearest neighbours"),
    "UpsampleTrilinear3D": _linear("interpolation with fixed weights"),
    # Piecewise linear: no curvature but at the kinks, where autograd's is 0.
    "Abs": _pieces("an absolute value"),
    "AdaptiveMaxPool2D": _pieces("max pooling"),
    "AdaptiveMaxPool3D": _pieces("max pooling"),
    "Amax": _pieces("a largest entry"),
    "Amin": _pieces("a smallest entry"),
    "Clamp": _pieces("bounds"),
    "ClampMax": _pieces("bounds"),
    "ClampMin": _pieces("bounds"),
    "Cummax": _pieces("a running maximum"),
    "Cummin": _pieces("a running minimum"),
    "Fmax": _pieces("a maximum"),
    "Fmin": _pieces("a minimum"),
    "Hardshrink": _pieces(),
    "Hardsigmoid": _pieces(),
    "Hardtanh": _pieces(),
    "Kthvalue": _pieces("an order statistic"),
    "LeakyRelu": _pieces(),
    "Max": _pieces("a largest entry"),
    "MaxPool2DWithIndices": _pieces("max pooling"),
    "MaxPool3DWithIndices": _pieces("max pooling"),
    "MaxUnpool2D": _pieces("entries written at given places"),
    "MaxUnpool3D": _pieces("entries written at given places"),
    "Maximum": _pieces("a maximum"),
    "Median": _pieces("an order statistic"),
    "Min": _pieces("a smallest entry"),
    "Minimum": _pieces("a minimum"),
    "NanToNum": _pieces("entries overwritten where they are not finite"),
    "Relu": _pieces(),
    "RreluWithNoise": _pieces(),
    "Softshrink": _pieces(),
    "Sort": _pieces("entries in order"),
    "Threshold": _pieces(),
    "Topk": _pieces("the largest entries"),
    "Where": _pieces("a choice between two"),
    # Linear in each argument: curved in what several arguments depend on.
    "Addbmm": _product((1, 2), reason="a matrix product"),
    "Addcmul": _product((1, 2)),
    "Addmm": _product((1, 2), reason="a matrix product"),
    "Addmv": _product((1, 2), reason="a matrix product"),
    "Addr": _product((1, 2), reason="an outer product"),
    "Baddbmm": _product((1, 2), reason="a matrix product"),
    "Bmm": _product((0, 1), reason="a matrix product"),
    "ConvTbc": _product((0, 1), reason="a convolution"),
    "Convolution": _product((0, 1), reason="a convolution"),
    "Dot": _product((0, 1), reason="a scalar product"),
    "EmbeddingBag": _product((0, 1), reason="weighted sums of rows looked up"),
    "Lerp": _product((0, 2), (1, 2), reason="a weighted mean"),
    "LinalgCross": _product((0, 1)),
    "Mm": _product((0, 1), reason="a matrix product"),
    "Mul": _product((0, 1)),
    "Mv": _product((0, 1), reason="a matrix product"),
    "PreluKernel": _product((0, 1), reason="a rectifier with a trained slope"),
    "Trilinear": _product((0, 1), (0, 2), (1, 2), reason="a bilinear layer"),
    "Vdot": _product((0, 1), reason="a scalar product"),
    # Linear in some arguments only.
    "Addcdiv": _curved(2, reason="a quotient, curved in what it divides by"),
    "Div": _curved(1, reason="a quotient, curved in what it divides by"),
    "GridSampler2D": _curved(1, reason="samples at places that depend on it"),
    "GridSampler3D": _curved(1, reason="samples at places that depend on it"),
    "CudnnBatchNorm": _product((0, 1), reason="batch norm"),
    "NativeBatchNorm": _product((0, 1), reason="batch norm"),
    "NativeGroupNorm": _curved(0, reason="group norm, curved in its input"),
    "NativeLayerNorm": _curved(0, reason="layer norm, curved in its input"),
    "FusedRmsNorm": _curved(0, reason="RMS norm, curved in its input"),
    "ScaledDotProductEfficientAttention": _curved(
        0, 1, 3, reason="attention, curved in queries and keys"
    ),
    "ScaledDotProductFlashAttentionForCpu": _curved(
        0, 1, 3, reason="attention, curved in queries and keys"
    ),
    "WeightNormInterface": _curved(0, reason="weight norm, curved in the direction"),
    # Curved in everything, named so that reasons can say what it is.
    "Elu": _smooth("ELU"),
    "Exp": _smooth("an exponential"),
    "Gelu": _smooth("GELU"),
    "Glu": _smooth("GLU"),
    "Hardswish": _smooth("Hardswish"),
    "LinalgVectorNorm": _smooth("a norm"),
    "Log": _smooth("a logarithm"),
    "LogSigmoid": _smooth("a sigmoid"),
    "LogSoftmax": _smooth("softmax"),
    "Mish": _smooth("Mish"),
    "MkldnnRnnLayer": _smooth("a recurrent layer"),
    "Pow": _smooth("a power"),
    "Rsqrt": _smooth("an inverse square root"),
    "Sigmoid": _smooth("a sigmoid"),
    "Silu": _smooth("SiLU"),
    "Softmax": _smooth("softmax"),
    "Softplus": _smooth("softplus"),
    "Sqrt": _smooth("a square root"),
    "Tanh": _smooth("tanh"),
}


def kind_of(node: Any) -> str | None:
    """Return the name of a node of PyTorch's own, without ``Backward``; None for any other.

    Parameters
    ----------
    node : torch.autograd.graph.Node
        A node of an autograd graph.

    Returns
    -------
    str or None
        ``"Addmm"`` for AddmmBackward0. A function written in Python is None whatever its name.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.linearity_rules import kind_of
    >>> kind_of(torch.ones(2, requires_grad=True).relu().grad_fn)
    'Relu'
    """
    name = node.name().rsplit("::", 1)[-1]
    if isinstance(node, BackwardCFunction):
        return None
    if name in _WITHOUT_DIGIT:
        return _WITHOUT_DIGIT[name]
    match = _NATIVE.match(name)
    return match[1] if match else None


def rule_of(node: Any) -> Rule:
    """Return the line of the table for a node, sharpened by the options that it saved.

    Parameters
    ----------
    node : torch.autograd.graph.Node
        A node of an autograd graph.

    Returns
    -------
    Rule
        Curved in everything where the table has no line.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.linearity_rules import rule_of
    >>> rule_of(torch.ones(2, requires_grad=True).relu().grad_fn).reason
    'piecewise linear'
    """
    kind = kind_of(node)
    rule = RULES.get(kind or "")
    if rule is None:
        name = node.name().rsplit("::", 1)[-1]
        # What was written in place into a part of a tensor is not shown, but all it used is.
        opaque = kind is None and name != "CopySlices"
        reason = f"{name}, for which there is no rule"
        return Rule(reason, curved=None, known=False, opaque=opaque)
    if kind in _BATCH_NORMS and node._saved_training:
        return _curved(0, reason="batch norm in training mode")
    if kind == "Abs" and _takes_complex(node):
        return _smooth("the size of complex numbers")
    return rule


def _takes_complex(node: Any) -> bool:
    """Tell whether the first argument of a node is complex."""
    source, number = node.next_functions[0]
    if hasattr(source, "variable"):
        return bool(source.variable.is_complex())
    return bool(source._input_metadata[number].dtype.is_complex)
