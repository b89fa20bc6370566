"""Proofs of piecewise linearity: each line of the table, and whole networks, against autograd."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from modules_oracles import NETWORKS, dense_diagonals, make_case, second_derivatives
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flattest.modules.linearity import proofs
from flattest.modules.linearity_rules import ON_CUDA_ONLY, RULES, kind_of

EYE = torch.eye(4, dtype=torch.float64)
CHOICE = torch.tensor([[0, 2, 1, 3]] * 4)
MASK = torch.tensor([[True, False, True, True]] * 4)
IMAGE = (1, 1, 4, 4)
VOLUME = (1, 1, 2, 2, 4)
NAMES = "pq"
ONCE_DIFFERENTIABLE = {
    *("EmbeddingBag", "Hardsigmoid", "ScaledDotProductFlashAttentionForCpu"),
    *("GridSampler2D", "GridSampler3D"),  # in the oldest PyTorch that the metadata admits
}

# Per kind of node: an expression of two 4 x 4 matrices p and q of parameters in which it occurs,
# and the names of those in which the expression is to be proved piecewise linear.
LINES = {
    "Add": (lambda p, q: p + 2 * q + p, "pq"),
    "Sub": (lambda p, q: p - q - 1, "pq"),
    "Rsub": (lambda p, q: torch.rsub(q, p), "pq"),
    "Neg": (lambda p, q: -p, "pq"),
    "Sum": (lambda p, q: p.sum() + q.sum(0), "pq"),
    "Mean": (lambda p, q: p.mean() + q.mean(1), "pq"),
    "Nansum": (lambda p, q: p.nansum() + q, "pq"),
    "Cumsum": (lambda p, q: p.cumsum(0) + q, "pq"),
    "Trace": (lambda p, q: p.trace() + q, "pq"),
    "NativeDropout": (lambda p, q: torch.native_dropout(p, 0.5, True)[0] + q, "pq"),
    "Alias": (lambda p, q: torch.ops.aten.alias(p) + q, "pq"),
    "AsStrided": (lambda p, q: p.as_strided((2, 2), (4, 1)).sum() + q, "pq"),
    "Expand": (lambda p, q: p[:1].expand(4, 4) * q, "pq"),
    "Permute": (lambda p, q: p.permute(1, 0) * q, "pq"),
    "ReshapeAlias": (lambda p, q: torch.ops.aten._reshape_alias(p, (16,), (1,)).sum() + q, "pq"),
    "Squeeze": (lambda p, q: p[:1].squeeze(0) + p[:1].squeeze() + q, "pq"),
    "T": (lambda p, q: p.t() * q, "pq"),
    "Transpose": (lambda p, q: p.transpose(0, 1) * q, "pq"),
    "UnsafeView": (lambda p, q: F.linear(EYE.expand(2, 4, 4).mT, p) + q, "pq"),
    "Unsqueeze": (lambda p, q: p.unsqueeze(0) * q, "pq"),
    "View": (lambda p, q: p.view(2, 8).sum() + q, "pq"),
    "Unfold": (lambda p, q: p.unfold(0, 2, 1).sum() + q, "pq"),
    "Diagonal": (lambda p, q: p.diagonal() + q, "pq"),
    "Gather": (lambda p, q: p.gather(1, CHOICE) + q, "pq"),
    "Index": (lambda p, q: p[CHOICE[0]] + q[MASK].sum(), "pq"),
    "IndexSelect": (lambda p, q: p.index_select(0, CHOICE[0]) + q, "pq"),
    "MaskedSelect": (lambda p, q: p.masked_select(MASK).sum() + q, "pq"),
    "Select": (lambda p, q: p.select(0, 1) + q, "pq"),
    "Slice": (lambda p, q: p[1:3].sum() + q, "pq"),
    "Take": (lambda p, q: p.take(CHOICE) + q, "pq"),
    "Tril": (lambda p, q: p.tril() + q, "pq"),
    "Triu": (lambda p, q: p.triu() + q, "pq"),
    "Split": (lambda p, q: p.split(2)[0].sum() + q, "pq"),
    "SplitWithSizes": (lambda p, q: p.split([1, 3])[1].sum() + q, "pq"),
    "UnsafeSplit": (lambda p, q: p.unsafe_split(2)[1].sum() + q, "pq"),
    "Unbind": (lambda p, q: p.unbind()[2] + q, "pq"),
    "Cat": (lambda p, q: torch.cat([p, q, p]), "pq"),
    "Stack": (lambda p, q: torch.stack([p, q]), "pq"),
    "Clone": (lambda p, q: p.clone() + q, "pq"),
    "Copy": (lambda p, q: torch.zeros(4, 4, dtype=p.dtype).copy_(p) + q, "pq"),
    "ToCopy": (lambda p, q: p.float().double() + q, "pq"),
    "DiagEmbed": (lambda p, q: torch.diag_embed(p).sum(0) + q, "pq"),
    "Flip": (lambda p, q: p.flip(0) * q, "pq"),
    "Repeat": (lambda p, q: p.repeat(2, 1).sum() + q, "pq"),
    "Roll": (lambda p, q: p.roll(1, 0) * q, "pq"),
    "PixelShuffle": (lambda p, q: F.pixel_shuffle(p.view(1, 4, 2, 2), 2).sum(0) * q, "pq"),
    "PixelUnshuffle": (lambda p, q: F.pixel_unshuffle(p.view(IMAGE), 2).sum() + q, "pq"),
    "ChannelShuffle": (lambda p, q: torch.channel_shuffle(p.view(1, 4, 2, 2), 2).sum() + q, "pq"),
    "IndexAdd": (lambda p, q: p.index_add(0, CHOICE[0], q), "pq"),
    "IndexCopy": (lambda p, q: p.index_copy(0, CHOICE[0, :2], q[:2]), "pq"),
    "IndexFill": (lambda p, q: p.index_fill(0, CHOICE[0, :2], q[0, 0]), "pq"),
    "IndexPut": (lambda p, q: p.index_put((CHOICE[0, :2],), q[:2], accumulate=True), "pq"),
    "MaskedFill": (lambda p, q: p.masked_fill(MASK, q[0, 0]), "pq"),
    "MaskedScatter": (lambda p, q: p.masked_scatter(MASK, q), "pq"),
    "Scatter": (lambda p, q: p.scatter(1, CHOICE, q), "pq"),
    "ScatterAdd": (lambda p, q: p.scatter_add(1, CHOICE, q), "pq"),
    "SelectScatter": (lambda p, q: p.select_scatter(q[0], 0, 1), "pq"),
    "SliceScatter": (lambda p, q: p.slice_scatter(q[:2], 0, 1, 3), "pq"),
    "Fill": (lambda p, q: torch.ops.aten.fill(p.clone(), q[0, 0]), "pq"),
    "Zero": (lambda p, q: p.clone().zero_() + q, "pq"),
    "ConstantPadNd": (lambda p, q: F.pad(p, (1, 1)).sum() + q, "pq"),
    "ReflectionPad1D": (lambda p, q: F.pad(p[None], (1, 1), "reflect") @ F.pad(q, (1, 1)).T, "pq"),
    "ReflectionPad2D": (lambda p, q: F.pad(p.view(IMAGE), (1, 1, 1, 1), "reflect"), "pq"),
    "ReflectionPad3D": (lambda p, q: F.pad(p.view(VOLUME), (1, 1, 1, 1, 1, 1), "reflect"), "pq"),
    "ReplicationPad1D": (lambda p, q: F.pad(p[None], (1, 1), "replicate"), "pq"),
    "ReplicationPad2D": (lambda p, q: F.pad(p.view(IMAGE), (1, 1, 1, 1), "replicate"), "pq"),
    "ReplicationPad3D": (lambda p, q: F.pad(p.view(VOLUME), (1,) * 6, "replicate"), "pq"),
    "Im2Col": (lambda p, q: F.unfold(p.view(IMAGE), 2), "pq"),
    "Col2Im": (lambda p, q: F.fold(p[None], (3, 3), 2), "pq"),
    "Embedding": (lambda p, q: F.embedding(CHOICE[0], p) * q, "pq"),
    "AdaptiveAvgPool2D": (lambda p, q: F.adaptive_avg_pool2d(p.view(IMAGE), 3), "pq"),
    "AdaptiveAvgPool3D": (lambda p, q: F.adaptive_avg_pool3d(p.view(VOLUME), 2), "pq"),
    "AvgPool2D": (lambda p, q: F.avg_pool2d(p.view(IMAGE), 2), "pq"),
    "AvgPool3D": (lambda p, q: F.avg_pool3d(p.view(VOLUME), 2), "pq"),
    "UpsampleBicubic2D": (lambda p, q: F.interpolate(p.view(IMAGE), (5, 5), mode="bicubic"), "pq"),
    "UpsampleBilinear2D": (lambda p, q: F.interpolate(p.view(IMAGE), 5, mode="bilinear"), "pq"),
    "UpsampleLinear1D": (lambda p, q: F.interpolate(p[None], 5, mode="linear"), "pq"),
    "UpsampleNearest1D": (lambda p, q: F.interpolate(p[None], 5), "pq"),
    "UpsampleNearest2D": (lambda p, q: F.interpolate(p.view(IMAGE), 5), "pq"),
    "UpsampleNearest3D": (lambda p, q: F.interpolate(p.view(VOLUME), 5), "pq"),
    "UpsampleNearestExact1D": (lambda p, q: F.interpolate(p[None], 5, mode="nearest-exact"), "pq"),
    "UpsampleNearestExact2D": (
        lambda p, q: F.interpolate(p.view(IMAGE), 5, mode="nearest-exact"),
        "pq",
    ),
    "UpsampleNearestExact3D": (
        lambda p, q: F.interpolate(p.view(VOLUME), 5, mode="nearest-exact"),
        "pq",
    ),
    "UpsampleTrilinear3D": (lambda p, q: F.interpolate(p.view(VOLUME), 5, mode="trilinear"), "pq"),
    "Abs": (lambda p, q: p.abs() * q, "pq"),
    "AdaptiveMaxPool2D": (lambda p, q: F.adaptive_max_pool2d(p.view(IMAGE), 2), "pq"),
    "AdaptiveMaxPool3D": (lambda p, q: F.adaptive_max_pool3d(p.view(VOLUME), 2), "pq"),
    "Amax": (lambda p, q: p.amax(0) * q, "pq"),
    "Amin": (lambda p, q: p.amin(0) * q, "pq"),
    "Clamp": (lambda p, q: p.clamp(-0.5, 0.5) + p.clamp(-q.abs(), q.abs()), "pq"),
    "ClampMax": (lambda p, q: p.clamp_max(0.1) + p.clamp_max(q), "pq"),
    "ClampMin": (lambda p, q: p.clamp_min(0.1) + p.clamp_min(q), "pq"),
    "Cummax": (lambda p, q: p.cummax(0)[0] * q, "pq"),
    "Cummin": (lambda p, q: p.cummin(0)[0] * q, "pq"),
    "Fmax": (lambda p, q: torch.fmax(p, q), "pq"),
    "Fmin": (lambda p, q: torch.fmin(p, q), "pq"),
    "Hardshrink": (lambda p, q: F.hardshrink(p) * q, "pq"),
    "Hardsigmoid": (lambda p, q: F.hardsigmoid(p) * q, "pq"),
    "Hardtanh": (lambda p, q: F.relu6(p) + F.hardtanh(q), "pq"),
    "Kthvalue": (lambda p, q: p.kthvalue(2)[0] * q, "pq"),
    "LeakyRelu": (lambda p, q: F.leaky_relu(p @ q, 0.1), "pq"),
    "Max": (lambda p, q: p.max(0)[0] * q + p.max(), "pq"),
    "MaxPool2DWithIndices": (lambda p, q: F.max_pool2d(p.view(IMAGE), 2), "pq"),
    "MaxPool3DWithIndices": (lambda p, q: F.max_pool3d(p.view(VOLUME), 2), "pq"),
    "MaxUnpool2D": (
        lambda p, q: F.max_unpool2d(*F.max_pool2d(p.view(IMAGE), 2, return_indices=True), 2),
        "pq",
    ),
    "MaxUnpool3D": (
        lambda p, q: F.max_unpool3d(*F.max_pool3d(p.view(VOLUME), 2, return_indices=True), 2),
        "pq",
    ),
    "Maximum": (lambda p, q: torch.maximum(p, q), "pq"),
    "Median": (lambda p, q: p.median(0)[0] * q + p.median(), "pq"),
    "Min": (lambda p, q: p.min(0)[0] * q, "pq"),
    "Minimum": (lambda p, q: torch.minimum(p, q), "pq"),
    "NanToNum": (lambda p, q: p.nan_to_num() * q, "pq"),
    "Relu": (lambda p, q: (p @ q).relu(), "pq"),
    "RreluWithNoise": (lambda p, q: F.rrelu(p) * q, "pq"),
    "Softshrink": (lambda p, q: F.softshrink(p, 0.2) * q, "pq"),
    "Sort": (lambda p, q: p.sort(0)[0] * q, "pq"),
    "Threshold": (lambda p, q: F.threshold(p, 0.1, 0.3) * q, "pq"),
    "Topk": (lambda p, q: p.topk(2)[0].sum() * q, "pq"),
    "Where": (lambda p, q: torch.where(p > q, p, q), "pq"),
    "Addbmm": (lambda p, q: torch.addbmm(p, q[None], (p + q)[None]), "p"),
    "Addcmul": (lambda p, q: torch.addcmul(p, p, q), "pq"),
    "Addmm": (lambda p, q: torch.addmm(p, p, q), "pq"),
    "Addmv": (lambda p, q: torch.addmv(q[0], p, q[0]), "pq"),
    "Addr": (lambda p, q: torch.addr(p, p[0], q[0]), "pq"),
    "Baddbmm": (lambda p, q: torch.baddbmm(p[None], q[None], p[None] + q), "p"),
    "Bmm": (lambda p, q: torch.bmm(p[None], (p + q)[None]), "q"),
    "ConvTbc": (lambda p, q: torch.conv_tbc(p[:, None], q[None], q[0]), "pq"),
    "Convolution": (
        lambda p, q: F.conv2d(p.view(IMAGE), q[:2, :2].view(1, 1, 2, 2), q[0, :1]),
        "pq",
    ),
    "Dot": (lambda p, q: torch.dot(p[0], p[1]) + q, "q"),
    "EmbeddingBag": (lambda p, q: bag(p, q), "pq"),
    "Lerp": (lambda p, q: torch.lerp(p, p.abs(), q) + torch.lerp(p, q, 0.3), "pq"),
    "LinalgCross": (lambda p, q: torch.linalg.cross(p[:, :3], q[:, :3]), "pq"),
    "Mm": (lambda p, q: p @ q @ q, "p"),
    "Mul": (lambda p, q: p * q * q, "p"),
    "Mv": (lambda p, q: p @ q[0], "pq"),
    "PreluKernel": (lambda p, q: F.prelu(p, q[0]), "pq"),
    "Trilinear": (lambda p, q: F.bilinear(p, p, q[None, :]), "q"),
    "Vdot": (lambda p, q: torch.vdot(p[0], q[0]), "pq"),
    "Addcdiv": (lambda p, q: torch.addcdiv(p, p, q), "p"),
    "Div": (lambda p, q: p / q / 2, "p"),
    "GridSampler2D": (lambda p, q: sampled(p.view(IMAGE), q.view(1, 2, 4, 2)), "p"),
    "GridSampler3D": (lambda p, q: sampled(p.view(VOLUME), q[:3].reshape(1, 2, 2, 1, 3)), "p"),
    "NativeBatchNorm": (
        lambda p, q: F.batch_norm(p @ q, EYE[0], 1 + EYE[1], p[0], q[0]),
        "q",
    ),
    "NativeGroupNorm": (lambda p, q: F.group_norm(p, 2, q[0], q[1]), "q"),
    "NativeLayerNorm": (lambda p, q: F.layer_norm(p, (4,), q[0], q[1]), "q"),
    "ScaledDotProductFlashAttentionForCpu": (
        lambda p, q: F.scaled_dot_product_attention(*(p.view(IMAGE),) * 2, q.view(IMAGE)),
        "q",
    ),
    "WeightNormInterface": (
        lambda p, q: torch._weight_norm_interface(p, q[:, :1].clone(), 0)[0],
        "q",
    ),
    "Elu": (lambda p, q: F.elu(p) * q, "q"),
    "Exp": (lambda p, q: p.exp() * q, "q"),
    "Gelu": (lambda p, q: F.gelu(p) * q, "q"),
    "Glu": (lambda p, q: F.glu(p).sum() * q, "q"),
    "Hardswish": (lambda p, q: F.hardswish(p) * q, "q"),
    "LinalgVectorNorm": (lambda p, q: torch.linalg.vector_norm(p) * q, "q"),
    "Log": (lambda p, q: p.abs().log() * q, "q"),
    "LogSigmoid": (lambda p, q: F.logsigmoid(p) * q, "q"),
    "LogSoftmax": (lambda p, q: p.log_softmax(0) * q, "q"),
    "Mish": (lambda p, q: F.mish(p) * q, "q"),
    "Pow": (lambda p, q: p**2 * q, "q"),
    "Rsqrt": (lambda p, q: p.abs().rsqrt() * q, "q"),
    "Sigmoid": (lambda p, q: p.sigmoid() * q, "q"),
    "Silu": (lambda p, q: F.silu(p) * q, "q"),
    "Softmax": (lambda p, q: p.softmax(0) @ q, "q"),
    "Softplus": (lambda p, q: F.softplus(p) * q, "q"),
    "Sqrt": (lambda p, q: p.abs().sqrt() * q, "q"),
    "Tanh": (lambda p, q: p.tanh() * q, "q"),
}


# Per kind of product: one parameter in two of the arguments that it multiplies.
SQUARES = {
    "Addbmm": [lambda p, q: torch.addbmm(q, p[None], p[None])],
    "Addcmul": [lambda p, q: torch.addcmul(q, p, p)],
    "Addmm": [lambda p, q: torch.addmm(q, p, p)],
    "Addmv": [lambda p, q: torch.addmv(q[0], p, p[0])],
    "Addr": [lambda p, q: torch.addr(q, p[0], p[1])],
    "Baddbmm": [lambda p, q: torch.baddbmm(q[None], p[None], p[None])],
    "Bmm": [lambda p, q: torch.bmm(p[None], p[None])],
    "ConvTbc": [lambda p, q: torch.conv_tbc(p[:, None], p[None], q[0])],
    "Convolution": [lambda p, q: F.conv2d(p.view(IMAGE), p[:2, :2].view(1, 1, 2, 2))],
    "Dot": [lambda p, q: torch.dot(p[0], p[1])],
    "EmbeddingBag": [lambda p, q: bag(p, p)],
    "Lerp": [lambda p, q: torch.lerp(p, q, p), lambda p, q: torch.lerp(q, p, p)],
    "LinalgCross": [lambda p, q: torch.linalg.cross(p[:, :3], p[:, 1:])],
    "Mm": [lambda p, q: p @ p],
    "Mul": [lambda p, q: p * p],
    "Mv": [lambda p, q: p @ p[0]],
    "PreluKernel": [lambda p, q: F.prelu(p, p[0])],
    "Trilinear": [
        lambda p, q: F.bilinear(p, p, q[None]),
        lambda p, q: F.bilinear(p, q, p[None]),
        lambda p, q: F.bilinear(q, p, p[None]),
    ],
    "Vdot": [lambda p, q: torch.vdot(p[0], p[1])],
    "NativeBatchNorm": [lambda p, q: F.batch_norm(p, EYE[0], 1 + EYE[1], p[0])],
}


def bag(p: Tensor, q: Tensor) -> Tensor:
    """Weighted sums of embeddings."""
    return F.embedding_bag(CHOICE, p, per_sample_weights=q, mode="sum")


def sampled(values: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(values, grid.tanh(), align_corners=False)


def kinds(outputs: Tensor) -> set[str | None]:
    """Return the kinds of all nodes of a graph."""
    found, stack = set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack += [source for source, _ in node.next_functions]
    return {kind_of(node) for node in found}


def pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    return p.requires_grad_(), q.requires_grad_()


def test_every_line_of_the_table_has_a_case() -> None:
    # The recurrent layer exists in float32 alone, so it is tested by itself.
    assert set(LINES) | {"MkldnnRnnLayer"} | ON_CUDA_ONLY == set(RULES)


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("seed", range(3))
def test_line_of_the_table(kind: str, seed: int) -> None:
    p, q = pair(seed)
    expression, linear = LINES[kind]
    outputs = expression(p, q)
    assert kind in kinds(outputs), kinds(outputs)
    found = proofs(outputs, {"p": p, "q": q})
    assert {name for name in NAMES if found[name].linear} == set(linear), found
    for name, tensor in (("p", p), ("q", q)):
        if not found[name].linear:
            continue
        if kind in ONCE_DIFFERENTIABLE:
            assert_constant_gradient(lambda: expression(p, q), tensor)
        elif kind != "NativeDropout":  # draws anew at each call
            curvature = second_derivatives(lambda: expression(p, q), tensor)
            assert curvature.abs().max() <= 1e-12, name


@pytest.mark.parametrize("kind", SQUARES)
def test_products_of_a_parameter_with_itself(kind: str) -> None:
    p, q = pair(0)
    for expression in SQUARES[kind]:
        outputs = expression(p, q)
        assert kind in kinds(outputs)
        found = proofs(outputs, {"p": p})["p"]
        assert not found.linear
        assert found.reason.startswith("both factors of")


def test_every_product_has_a_square() -> None:
    assert {kind for kind, rule in RULES.items() if rule.products} - ON_CUDA_ONLY == set(SQUARES)


@pytest.mark.parametrize("argument", range(3))
def test_attention_is_curved_in_queries_and_keys(argument: int) -> None:
    p, _ = pair(0)
    arguments = [EYE.view(IMAGE)] * 3
    arguments[argument] = p.view(IMAGE)
    found = proofs(F.scaled_dot_product_attention(*arguments), {"p": p})["p"]
    assert found.linear is (argument == 2)


def assert_constant_gradient(function: Callable[[], Tensor], tensor: Tensor) -> None:
    """Compare gradients a little apart, for what PyTorch does not differentiate twice."""
    (before,) = torch.autograd.grad(function().sum(), tensor)
    with torch.no_grad():
        tensor += 1e-6 * torch.linspace(-1, 1, tensor.numel()).reshape(tensor.shape)
    (after,) = torch.autograd.grad(function().sum(), tensor)
    assert (after - before).abs().max() <= 1e-12


def test_recurrent_layer() -> None:
    # Fused on the CPU in float32 only.
    layer = nn.LSTM(2, 2)
    outputs = layer(torch.ones(3, 1, 2))[0]
    assert "MkldnnRnnLayer" in kinds(outputs)
    found = proofs(outputs, dict(layer.named_parameters()))
    assert not any(proof.linear for proof in found.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_lines_on_cuda() -> None:
    p, q = (tensor.detach().cuda().requires_grad_() for tensor in pair(0))
    norm = nn.BatchNorm2d(1).cuda().eval()
    image = p.float().view(IMAGE).expand(2, 1, 4, 4)
    outputs = norm(image)
    assert kinds(outputs) & {"CudnnBatchNorm", "NativeBatchNorm"}
    assert all(proof.linear for proof in proofs(outputs, {"p": p}).values())
    outputs = torch._fused_rms_norm(p, [4], q[0], None)[0]
    assert "FusedRmsNorm" in kinds(outputs)
    found = proofs(outputs, {"p": p, "q": q})
    assert not found["p"].linear
    assert found["q"].linear
    one, other = (tensor.float().view(1, 1, 4, 4).expand(1, 1, 4, 4) for tensor in (p, q))
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        outputs = F.scaled_dot_product_attention(one, one, other)
    assert "ScaledDotProductEfficientAttention" in kinds(outputs)
    found = proofs(outputs, {"p": p, "q": q})
    assert not found["p"].linear
    assert found["q"].linear


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    """No false proof: what is proved has no residual part, entry by entry; and enough is proved."""
    case = make_case(name)
    found = proofs(case.outputs(), case.tensors)
    assert set(found) == set(case.tensors)
    missing = {one: found[one].reason for one in case.linear if not found[one].linear}
    assert not missing
    if name == "embedding bag":
        return  # PyTorch has no second derivative of it
    truth = dense_diagonals(case)
    for one, proof in found.items():
        residual = truth.hessian[one] - truth.gauss_newton[one]
        if proof.linear:
            assert residual.abs().max() <= 1e-12 * truth.size, one


class Square(torch.autograd.Function):
    """A function of the user's, of which only the gradient is known."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Relu(Square):
    """Its node's name resembles that of PyTorch's own rectifier."""


@pytest.mark.parametrize("function", [Square, Relu])
def test_functions_of_the_user_prove_nothing(function: type[torch.autograd.Function]) -> None:
    p, q = pair(0)
    found = proofs(function.apply(p), {"p": p, "q": q})
    assert not found["p"].linear
    assert "no rule" in found["p"].reason
    # It might use q unseen.
    assert not found["q"].linear
    assert "may hide" in found["q"].reason


def test_reentrant_checkpoint_proves_nothing() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.ones(4, 2, requires_grad=True)
    outputs = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=True)
    found = proofs(outputs, dict(net.named_parameters()))
    assert not any(proof.linear for proof in found.values())


def test_checkpoint_is_seen_through() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    outputs = torch.utils.checkpoint.checkpoint(net, torch.ones(4, 2), use_reentrant=False)
    found = proofs(outputs, dict(net.named_parameters()))
    assert [proof.linear for proof in found.values()] == [False, False, True, True]


def test_batch_norm_in_training_mode_is_curved_in_its_input() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train()
    found = proofs(net(torch.randn(4, 2)), dict(net.named_parameters()))
    assert [proof.linear for proof in found.values()] == [False, False, True, True]
    assert "training mode" in found["0.weight"].reason


def test_sizes_of_complex_numbers_are_curved() -> None:
    p, q = pair(0)
    outputs = torch.complex(p, q).abs()
    assert not any(proof.linear for proof in proofs(outputs, {"p": p, "q": q}).values())
    r = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    assert not proofs(r.abs(), {"r": r})["r"].linear


def test_written_in_place_into_a_part() -> None:
    p, q = pair(0)
    whole = p.clone()
    whole[0].exp_()
    found = proofs(whole, {"p": p, "q": q})
    assert not found["p"].linear
    assert found["q"] == (True, "the outputs do not depend on it")


def test_reasons_name_what_stands_in_the_way() -> None:
    case = make_case("shared relu")
    found = proofs(case.outputs(), case.tensors)
    assert found["0.weight"].reason == (
        "both factors of a matrix product (AddmmBackward0) depend on it"
    )
    case = make_case("mlp gelu")
    assert "GELU" in proofs(case.outputs(), case.tensors)["0.weight"].reason


def test_two_names_of_one_tensor() -> None:
    case = make_case("tied language model")
    every = dict(case.module.named_parameters(remove_duplicate=False))
    found = proofs(case.outputs(), every)
    assert not found["head.weight"].linear
    assert found["head.weight"] == found["tokens.weight"]


def test_a_parameter_as_output() -> None:
    p, q = pair(0)
    found = proofs(p, {"p": p, "q": q})
    assert found["p"].linear
    assert found["q"].linear


def test_a_deep_chain_needs_no_recursion() -> None:
    p, q = pair(0)
    value = p
    for _ in range(5000):
        value = value + q
    assert proofs(value, {"p": p})["p"].linear


def test_bad_input() -> None:
    p, q = pair(0)
    with pytest.raises(ValueError, match="have no autograd graph"):
        proofs((p * q).detach(), {"p": p})
    with pytest.raises(ValueError, match=r"parameters\['p'\] must be a leaf"):
        proofs(p * q, {"p": p * 2})
    with pytest.raises(ValueError, match="must be a leaf"):
        proofs(p * q, {"x": torch.ones(2)})


def test_nothing_is_changed() -> None:
    case = make_case("transformer")
    before = {name: tensor.clone() for name, tensor in case.tensors.items()}
    state = torch.get_rng_state()
    proofs(case.outputs(), case.tensors)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in case.tensors.items():
        assert tensor.grad is None
        assert torch.equal(tensor, before[name])
