"""One line per operation: what it demands of scales, and why.

The names are those of PyTorch's elementary operations, ``aten``. An operation that is not in the
table freezes all that it touches and is reported, so the table can be incomplete without being
wrong. How a rule works is in the function that the line names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flattest.modules.symmetry import (
    contraction as c,
    elementwise as e,
    normalisation as n,
    rearrangement as r,
)


class Rule(NamedTuple):
    """What an operation demands.

    Parameters
    ----------
    apply : callable
        Of the walk, the step and the operation's arguments; returns the result's labels.
    title : str
        The operation's name for people, which stands in reasons.
    """

    apply: Callable[..., Any]
    title: str


def _lines(apply: Callable[..., Any], *titled: str) -> dict[str, Rule]:
    """Return rules for names that are written ``name: title``, or just ``name``."""
    lines = {}
    for text in titled:
        name, _, title = text.partition(": ")
        lines[name] = Rule(apply, title or name.strip("_").replace("_", " "))
    return lines


RULES: dict[str, Rule] = {
    # f(c x) = c f(x) for c > 0: the scale goes through.
    **_lines(e.passes, "relu: ReLU", "leaky_relu: leaky ReLU", "abs", "neg", "positive"),
    **_lines(e.passes, "native_dropout: dropout", "alias", "lift_fresh", "detach", "real"),
    **_lines(e.scaled_down, "_to_copy: conversion", "to: conversion", "type_as: conversion"),
    # The sign, and questions about zero and infinity, do not depend on the scale.
    **_lines(e.ignores, "sign", "sgn", "signbit", "isnan", "isinf", "isfinite"),
    **_lines(e.ignores, "logical_not", "logical_and", "logical_or", "logical_xor"),
    **_lines(e.ignores, "bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor", "any", "all"),
    **_lines(e.ignores, "nonzero", "count_nonzero"),
    # A number that Python works with is the same from then on.
    **_lines(e.freezes, "_local_scalar_dense: a number read by Python"),
    # Both sides of a sum have one scale; a weight takes that of the other side.
    **_lines(e.added, "add: a sum", "sub: a difference", "rsub: a difference"),
    **_lines(e.unified, "maximum", "minimum", "fmax", "fmin"),
    **_lines(e.compared, "eq: comparison", "ne: comparison", "lt: comparison", "le: comparison"),
    **_lines(e.compared, "gt: comparison", "ge: comparison"),
    **_lines(e.chosen, "where: a choice"),
    **_lines(e.masked, "masked_fill: a mask"),
    # Exponents add in products and are multiplied in powers.
    **_lines(e.multiplied, "mul: a product"),
    **_lines(e.divided, "div: a quotient"),
    **_lines(e.raised, "pow: a power"),
    **_lines(e.squared, "square"),
    **_lines(e.root, "sqrt: square root"),
    **_lines(e.inverse_root, "rsqrt: inverse square root"),
    **_lines(e.inverse, "reciprocal"),
    **_lines(e.product_along, "prod: a product"),
    # Bounds at 0 and at infinity are homogeneous, others are not.
    **_lines(e.clamped, "clamp: clipping", "hardtanh: Hardtanh"),
    **_lines(e.clipped_below, "clamp_min: clipping"),
    **_lines(e.clipped_above, "clamp_max: clipping"),
    **_lines(e.thresholded, "threshold: threshold"),
    **_lines(e.shrunk, "hardshrink: Hardshrink", "softshrink: Softshrink"),
    **_lines(e.gated, "glu: GLU"),
    **_lines(e.with_slope, "_prelu_kernel: PReLU"),
    # What is summed or compared along a dimension has one scale there.
    **_lines(e.reduced, "sum", "mean", "amax: a maximum", "amin: a minimum", "max", "min"),
    **_lines(e.reduced, "nansum: sum", "median", "nanmedian: median", "std"),
    **_lines(e.norm, "linalg_vector_norm: norm", "norm"),
    **_lines(e.scanned, "cumsum: running sum", "cummax: running maximum", "sort"),
    **_lines(e.scanned, "cummin: running minimum"),
    **_lines(e.top, "topk: largest entries", "kthvalue"),
    **_lines(e.ranked, "argmax", "argmin", "argsort"),
    # Pools and enlargements: a channel has one scale at all positions.
    **_lines(e.pooled(1), "avg_pool1d: average pool", "_adaptive_avg_pool1d: average pool"),
    **_lines(e.pooled(2), "avg_pool2d: average pool", "_adaptive_avg_pool2d: average pool"),
    **_lines(e.pooled(3), "avg_pool3d: average pool", "_adaptive_avg_pool3d: average pool"),
    **_lines(e.pooled(2), "max_pool2d_with_indices: max pool", "adaptive_max_pool2d: max pool"),
    **_lines(e.pooled(3), "max_pool3d_with_indices: max pool", "adaptive_max_pool3d: max pool"),
    **_lines(e.pooled(2), "fractional_max_pool2d: max pool"),
    **_lines(r.spread(1), "upsample_nearest1d", "upsample_linear1d", "_upsample_nearest_exact1d"),
    **_lines(r.spread(2), "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    **_lines(r.spread(2), "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"),
    **_lines(r.spread(2), "_upsample_bicubic2d_aa"),
    **_lines(r.sampled, "grid_sampler_2d: sampling at positions", "grid_sampler_3d: sampling"),
    **_lines(r.spread(3), "upsample_nearest3d", "upsample_trilinear3d"),
    **_lines(r.spread(3), "_upsample_nearest_exact3d"),
    # Contractions: see the module `contraction`.
    **_lines(c.matmul, "mm: a product of matrices", "bmm: a product of matrices"),
    **_lines(c.addmm, "addmm: a product of matrices", "baddbmm: a product of matrices"),
    **_lines(c.addmv, "addmv: a product with a vector"),
    **_lines(c.vector_product, "mv: a product with a vector", "dot", "vdot: dot"),
    **_lines(c.convolution, "convolution"),
    **_lines(c.bilinear, "_trilinear: bilinear layer"),
    **_lines(c.embedding, "embedding"),
    **_lines(
        c.embedding_bag, "_embedding_bag: embedding", "_embedding_bag_forward_only: embedding"
    ),
    # Normalisation freezes its input, since eps does not scale with it; gain and bias scale.
    **_lines(n.layer_norm, "native_layer_norm: layer norm"),
    **_lines(n.group_norm, "native_group_norm: group norm"),
    **_lines(n.rms_norm, "_fused_rms_norm: RMS norm"),
    **_lines(n.batch_norm, "native_batch_norm: batch norm", "cudnn_batch_norm: batch norm"),
    **_lines(n.batch_norm, "_native_batch_norm_legit: batch norm"),
    **_lines(n.batch_norm, "_native_batch_norm_legit_no_training: batch norm"),
    **_lines(n.batch_norm, "miopen_batch_norm: batch norm"),
    **_lines(n.weight_norm, "_weight_norm_interface: weight norm"),
    # Entries that are viewed, copied, moved, repeated or put beside others keep their scales.
    **_lines(r.viewed, "permute", "t", "transpose", "expand", "slice", "select", "split"),
    **_lines(r.viewed, "split_with_sizes", "unbind", "squeeze", "unsqueeze", "diagonal"),
    **_lines(r.viewed, "unsafe_split", "unsafe_split_with_sizes", "unfold", "chunk", "narrow"),
    **_lines(r.reshaped, "view", "_unsafe_view: view", "reshape", "_reshape_alias: view"),
    **_lines(r.restrided, "as_strided: a view by strides"),
    **_lines(r.copied, "clone", "contiguous", "_conj", "lift_fresh_copy"),
    **_lines(r.written, "copy"),
    **_lines(r.moved, "flip", "roll", "repeat", "pixel_shuffle", "pixel_unshuffle"),
    **_lines(r.moved, "channel_shuffle", "native_channel_shuffle", "im2col", "rot90"),
    **_lines(r.moved, "reflection_pad1d", "reflection_pad2d", "reflection_pad3d"),
    **_lines(r.moved, "replication_pad1d", "replication_pad2d", "replication_pad3d"),
    **_lines(r.moved, "tril", "triu", "diag_embed"),
    **_lines(r.joined, "cat", "stack", "concat"),
    **_lines(r.padded, "constant_pad_nd: padding"),
    **_lines(r.scattered, "slice_scatter", "select_scatter", "diagonal_scatter"),
    **_lines(r.indexed, "index: a selection", "_unsafe_index: a selection"),
    **_lines(r.gathered, "gather: a selection", "index_select: a selection"),
    **_lines(r.put, "index_put: writing at indices", "_unsafe_index_put: writing at indices"),
    **_lines(r.put, "masked_scatter: writing by a mask"),
    **_lines(r.put_along, "scatter: writing at indices", "scatter_add: adding at indices"),
    **_lines(r.put_along, "scatter_reduce: writing at indices"),
    **_lines(r.added_by_index, "index_add: adding at indices", "index_copy: writing at indices"),
    **_lines(r.filled, "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros"),
    **_lines(r.filled, "new_ones", "new_full", "new_empty", "fill", "new_empty_strided"),
    # No scale goes through these; what is overwritten by zeros is used nowhere else.
    **_lines(e.freezes, "zero: overwriting by zeros"),
    **_lines(e.freezes, "gelu: GELU", "silu: SiLU", "sigmoid", "tanh", "elu: ELU", "celu: CELU"),
    **_lines(e.freezes, "selu: SELU", "softplus: Softplus", "mish: Mish", "hardswish: Hardswish"),
    **_lines(e.freezes, "hardsigmoid: Hardsigmoid", "log_sigmoid_forward: log-sigmoid"),
    **_lines(e.freezes, "_softmax: softmax", "_safe_softmax: softmax"),
    **_lines(e.freezes, "softmax", "log_softmax: log-softmax", "_log_softmax: log-softmax"),
    **_lines(e.freezes, "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "logsumexp"),
    **_lines(e.freezes, "sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh"),
    **_lines(e.freezes, "acosh", "atanh", "erf", "erfc", "rrelu_with_noise: RReLU"),
    **_lines(e.freezes, "floor", "ceil", "round", "trunc", "frac", "fmod", "remainder"),
    **_lines(e.freezes, "atan2", "logaddexp", "hypot", "bernoulli", "multinomial", "rand_like"),
    **_lines(e.freezes, "linalg_matrix_exp: matrix exponential", "cumprod", "var", "var_mean"),
    **_lines(e.freezes, "_thnn_fused_lstm_cell: LSTM", "_thnn_fused_gru_cell: GRU"),
    **_lines(e.freezes, "mkldnn_rnn_layer: LSTM", "_cudnn_rnn: recurrent layer", "randn_like"),
    **_lines(e.freezes, "_scaled_dot_product_flash_attention_for_cpu: attention"),
    **_lines(e.freezes, "_scaled_dot_product_flash_attention: attention"),
    **_lines(e.freezes, "_scaled_dot_product_efficient_attention: attention"),
}
GENERIC = {"sin", "cos", "tan", "log", "tanh", "erf", "sigmoid", "log1p", "expm1"}
"""Functions that are zero here and there by accident: zeros of their constants say nothing."""
