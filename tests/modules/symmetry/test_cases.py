"""The graphs that break tools for pruning and folding, with their right values."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import Applied
from torch import nn

import flattest as ft
from flattest.modules.symmetry.finding import find

RNG = np.random.default_rng(0)


def symmetries(module, *inputs, batch_norm="keep"):
    return find(module, inputs, None, batch_norm, ("trace",))


def change(found, inputs, scale=2.0):
    """Return the largest change of an output under random scales, relative to the largest."""
    z = scale * RNG.standard_normal(found.n_scales)
    with torch.no_grad():
        before, after = found.module(*inputs), found.transformed(z=z)(*inputs)
    return float((before - after).abs().max() / before.abs().max())


def normalised(n, dimensions=2):
    norm = getattr(nn, f"BatchNorm{dimensions}d")(n)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def x_2d(n=3, channels=2, size=7):
    return torch.randn(n, channels, size, size, dtype=torch.float64)


# 19. Folding would change the other branch.
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_norm", ["keep", "fold"])
def test_folding_leaves_other_branches_alone(bias, batch_norm):
    module = Applied(
        lambda m, x: m.h(
            (m.n(m.a(x)) + m.a(x)).relu().mean((2, 3)) + m.k(m.b(x)).relu().mean((2, 3))
        ),
        a=nn.Conv2d(2, 3, 3, bias=bias),
        n=normalised(3),
        b=nn.Conv2d(2, 3, 3, bias=bias),
        k=normalised(3),
        h=nn.Linear(3, 2),
    ).double()
    inputs = (x_2d(),)
    module.eval()
    found = symmetries(module, *inputs, batch_norm=batch_norm)
    torch.testing.assert_close(found.module(*inputs), module(*inputs), rtol=0, atol=1e-10)
    assert change(found, inputs) < 1e-10
    if batch_norm == "fold":
        assert found.folded == ("k",)
        # Two calls of one layer are two operations; what stands in the way is its shared weight.
        assert found.unfolded == {"n": "the layer before it shares its weight"}
        assert "n is not folded: the layer before it shares its weight" in repr(found)
    else:
        assert found.module is module


def test_an_output_that_is_used_twice_is_not_folded():
    def forward(m, x):
        y = m.a(x)
        return (m.n(y) + y).flatten(1)

    module = Applied(forward, a=nn.Conv2d(2, 3, 3), n=normalised(3)).double().eval()
    found = symmetries(module, x_2d(), batch_norm="fold")
    assert list(found.unfolded.values()) == [
        "the output of the layer before it is used elsewhere as well"
    ]


LAYERS = [
    # Every kind with every number of groups, and all else in turn.
    (kind, dimensions, groups, bias)
    for number, (kind, dimensions, groups) in enumerate(
        itertools.product(("Conv", "ConvTranspose"), (1, 2, 3), (1, 2, 4))
    )
    for bias in ([False, True] if dimensions == 2 else [bool(number % 2)])
]


# 20. Convolutions of every kind, kept and folded.
@pytest.mark.parametrize(("kind", "dimensions", "groups", "bias"), LAYERS)
def test_convolutions_of_every_kind(kind, dimensions, groups, bias):
    layer = getattr(nn, f"{kind}{dimensions}d")
    torch.manual_seed(0)
    module = nn.Sequential(
        layer(4, 4, 2, groups=groups, bias=bias),
        normalised(4, dimensions),
        nn.ReLU(),
        layer(4, 8, 2, groups=groups, bias=bias, stride=2),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    x = torch.randn(3, 4, *(5,) * dimensions, dtype=torch.float64)
    module.double()(x)
    module.eval()
    found = symmetries(module, x, batch_norm="fold")
    assert found.n_scales == 4 + 8
    assert found.folded == ("1",)
    assert not found.unfolded
    torch.testing.assert_close(found.module(x), module(x), rtol=1e-12, atol=1e-12)
    assert change(found, (x,)) < 1e-12


# 21. Flattening: each channel owns a block of features, in whatever order.
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 2, 1, 3)])
def test_flattened_channels_own_features(order):
    module = Applied(
        lambda m, x: m.b(m.a(x).relu().permute(order).flatten(1)),
        a=nn.Conv2d(2, 3, 2),
        b=nn.Linear(48, 2),
    ).double()
    found = symmetries(module, x_2d(size=5))
    assert found.n_scales == 3
    logs = found.tensors[2].log_scales(np.array([1.0, 10.0, 100.0])).expand(2, 48)
    channel = torch.arange(3).view(1, 3, 1, 1).expand(1, 3, 4, 4).permute(order).flatten()
    torch.testing.assert_close(-logs[0], torch.tensor([1.0, 10.0, 100.0]).double()[channel])


def test_one_channel_convolutions_are_not_depthwise():
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 1, 3)
    )
    assert symmetries(module, torch.randn(2, 1, 9, 9)).n_scales == 16 + 64


def test_halves_of_a_concatenation_keep_their_scales():
    module = Applied(
        lambda m, x: m.h(torch.cat([m.a(x), m.b(x)], 1).relu()),
        a=nn.Linear(3, 2),
        b=nn.Linear(3, 4),
        h=nn.Linear(6, 2),
    ).double()
    found = symmetries(module, torch.randn(4, 3).double())
    assert found.n_scales == 6
    assert [entry.free for entry in found.channels()][:3:2] == [2, 4]


# 22. One scale runs through a depthwise layer.
def test_a_depthwise_layer_has_scales_on_both_sides():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 3, 1)
    ).double()
    found = symmetries(module, x_2d())
    depthwise = found.tensors[2]
    assert found.n_scales == 8
    assert depthwise.block_shape == (4, 1, 1, 1)
    z = np.arange(1.0, 9.0)
    expected = torch.tensor(z[4:] - z[:4]).view(4, 1, 1, 1)
    torch.testing.assert_close(depthwise.log_scales(z), expected)


# 23. What freezes, and why.
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (nn.ReLU6(), "ReLU6 after 0"),
        (nn.Hardtanh(), "Hardtanh after 0"),
        (nn.GELU(), "GELU after 0"),
        (nn.SiLU(), "SiLU after 0"),
        (nn.Sigmoid(), "sigmoid after 0"),
        (nn.Softplus(), "Softplus after 0"),
        (nn.ELU(), "ELU after 0"),
        (nn.Hardswish(), "after 0"),
        (nn.Softmax(dim=1), "softmax after 0"),
        (nn.LayerNorm(5), "layer norm after 0"),
    ],
)
def test_what_freezes_is_named(function, reason):
    module = nn.Sequential(nn.Linear(3, 5), function, nn.Linear(5, 2))
    found = symmetries(module, torch.randn(4, 3))
    assert reason in found.frozen["0.weight"]
    assert found.frozen["2.bias"] == "the outputs"


# 24. However it is written.
@pytest.mark.parametrize(
    "rectify",
    [
        F.relu,
        torch.relu,
        torch.relu_,
        lambda z: z.relu(),
        lambda z: z.clamp(min=0),
        lambda z: torch.where(z > 0, z, 0.0),
        lambda z: z * (z > 0),
        lambda z: z.masked_fill(z < 0, 0),
    ],
)
def test_a_rectifier_is_one_however_it_is_written(rectify):
    def forward(m, x):
        y = rectify(m.a(x))
        y += m.c(y)
        return m.b(rectify(y))

    module = Applied(forward, a=nn.Linear(3, 4), c=nn.Linear(4, 4), b=nn.Linear(4, 2)).double()
    found = symmetries(module, torch.randn(5, 3).double())
    assert found.n_scales == 4
    assert [entry.tied for entry in found.channels()][::2] == [4, 4, 0]


# 25. What is gated scales, its gate does not; attention scales coordinate by coordinate.
@pytest.mark.parametrize(
    ("gate", "free"), [(F.silu, 6), (F.gelu, 6), (torch.sigmoid, 6), (F.relu, 12)]
)
def test_gated_layers(gate, free):
    module = Applied(
        lambda m, x: m.d(gate(m.g(x)) * m.u(x)),
        g=nn.Linear(3, 6),
        u=nn.Linear(3, 6),
        d=nn.Linear(6, 2),
    ).double()
    found = symmetries(module, torch.randn(5, 3).double())
    assert found.n_scales == free
    assert ("g.weight" in found.frozen) == (free == 6)
    tensors = {tensor.name: tensor for tensor in found.tensors}
    z = RNG.standard_normal(free)
    up, down = (tensors[name].log_scales(z) for name in ("u.weight", "d.weight"))
    if free == 6:
        torch.testing.assert_close(up, torch.tensor(z)[:, None])
        torch.testing.assert_close(down, -torch.tensor(z).expand(2, 6))
    assert change(found, (torch.randn(4, 3).double(),)) < 1e-12


@pytest.mark.parametrize(
    ("between", "free"),
    [
        (lambda q: q, 4 + 4),
        (F.leaky_relu, 4 + 4),
        (lambda q: F.layer_norm(q, (2,)), 4),  # what is normalised does not scale
        (F.gelu, 4),
    ],
)
def test_attention_scales_coordinates(between, free):
    def forward(m, x):
        q, k, v = (layer(x).unflatten(-1, (2, 2)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(between(q), between(k), v)
        return m.o(y.transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(4, 4) for name in "qkvo"}
    module, inputs = Applied(forward, **layers).double(), (torch.randn(3, 5, 4).double(),)
    found = symmetries(module, *inputs)
    assert found.n_scales == free
    z = RNG.standard_normal(free)
    logs = {tensor.name: tensor.log_scales(z).expand(tensor.shape) for tensor in found.tensors}
    q, k, v, o = (logs[f"{name}.weight"] for name in "qkvo")
    torch.testing.assert_close(v, -o.T)
    if free == 8:
        torch.testing.assert_close(q, -k)
        assert len(torch.cat([q, v]).unique()) == 8
    assert change(found, inputs) < 1e-12


# 26. Dead channels are named.
def test_dead_channels_are_reported():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        module[0].weight[0], module[0].bias[0] = 0.0, 0.0
        module[2].weight[:, 1] = 0.0
        module[0].weight[2], module[0].bias[2], module[2].weight[:, 2] = 0.0, 0.0, 0.0
    found = symmetries(module, torch.randn(5, 3).double())
    assert found.dead == {
        "0.weight[0]": "all weights that enter it are zero",
        "0.weight[1]": "all weights that leave it are zero",
        "0.weight[2]": "all its weights are zero",
    }
    assert "3 dead scales" in repr(found)


def test_scale_invariant_weights_are_reported():
    module = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)).double()
    found = symmetries(module, torch.randn(5, 3).double())
    assert found.n_scales == 4
    assert set(found.dead.values()) == {
        "no other parameter makes up for it, so that the infimum is zero"
    }


def test_unused_parameters_are_named():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    module.register_parameter("extra", nn.Parameter(torch.ones(3)))
    found = symmetries(module, torch.randn(5, 3))
    assert found.frozen["extra"] == "no output depends on it"
    assert found.n_scales == 4


# 27. A copy of the same class, with the same keys, dtypes and device.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch_norm", ["keep", "fold"])
def test_copies_are_of_the_same_kind(dtype, batch_norm):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), normalised(4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 2)
    )
    module = module.to(dtype).eval()
    x = x_2d().to(dtype)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = ft.symmetries(module, x, batch_norm=batch_norm)
    copied = found.transformed(z=0.1 * RNG.standard_normal(found.n_scales))
    assert type(copied) is type(module)
    assert list(copied.state_dict()) == list(before)
    for name, value in copied.state_dict().items():
        assert value.dtype == before[name].dtype
        if "running" in name and batch_norm == "keep":
            assert torch.equal(value, before[name])
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch_norm", ["keep", "fold"])
@pytest.mark.parametrize("objective", ["trace", "range", "quantisation"])
def test_balanced_modules_are_of_the_same_kind(dtype, batch_norm, objective):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(2, 4, 3), normalised(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
        module, x = nn.Sequential(*layers).to(dtype).eval(), x_2d(size=5).to(dtype)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    options = {"loss": "cross_entropy", "batch_norm": batch_norm, "objective": objective}
    y = torch.tensor([0, 1, 1])
    copied = ft.balance(module, x, y, **options)
    assert type(copied) is type(module)
    assert list(copied.state_dict()) == list(before)
    for name, value in copied.state_dict().items():
        assert value.dtype == before[name].dtype
        if "running" in name and batch_norm == "keep":
            assert torch.equal(value, before[name])
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    again = ft.balance(copied, x, y, **options)
    for name, value in again.state_dict().items():
        assert value.equal(copied.state_dict()[name]), name


def test_tied_weights_are_scaled_once():
    module = Applied(
        lambda m, x: F.linear(m.a(m.e(x)).relu(), m.d.weight), e=nn.Embedding(7, 3),
        a=nn.Linear(3, 4), d=nn.Linear(4, 2, bias=False),
    )  # fmt: skip
    module.again = module.a
    module = module.double()
    tokens = torch.arange(6).view(2, 3)
    found = symmetries(module, tokens)
    assert [tensor.name for tensor in found.tensors] == [n for n, _ in module.named_parameters()]
    copied = found.transformed(z=RNG.standard_normal(found.n_scales))
    assert copied.again is copied.a
    torch.testing.assert_close(copied(tokens), module(tokens), rtol=1e-12, atol=1e-12)


# Two-layer networks are known in closed form.
@pytest.mark.parametrize(
    ("activation", "degree"),
    [("relu", 1), ("leaky_relu", 1), ("abs", 1), ("relu2", 2), ("quadratic", 2)],
)
def test_two_layer_networks_have_a_scale_for_each_neuron(activation, degree):
    net = ft.TwoLayerNet(RNG.standard_normal((5, 3)), RNG.standard_normal(5), activation)
    found = symmetries(net, torch.randn(4, 3).double())
    z = RNG.standard_normal(5)
    weights, coefficients = found.tensors
    torch.testing.assert_close(weights.log_scales(z), torch.tensor(z)[:, None])
    torch.testing.assert_close(coefficients.log_scales(z), -degree * torch.tensor(z))
    other = ft.rescale(net, np.exp(z))
    ours = found.transformed(z=z)
    torch.testing.assert_close(ours.weights, other.weights)
    torch.testing.assert_close(ours.coefficients, other.coefficients)


# The affine freedom of batch normalisation that keeps its running statistics.
@pytest.mark.parametrize("dimensions", [1, 2])
def test_kept_statistics_leave_an_affine_freedom(dimensions):
    torch.manual_seed(0)
    layer = getattr(nn, f"Conv{dimensions}d")
    module = nn.Sequential(
        *(layer(2, 4, 2), normalised(4, dimensions), nn.ReLU()),
        *(layer(4, 3, 2), normalised(3, dimensions)),
    )  # fmt: skip
    module = module.double().eval()
    x = torch.randn(3, 2, *(6,) * dimensions, dtype=torch.float64)
    assert symmetries(module, x).n_scales == 4
    found = symmetries(module, x, batch_norm="affine")
    # Behind each convolution, and between the first normalisation and the second convolution.
    assert found.n_scales == 4 + 4 + 3
    assert [(shift.gain, shift.bias) for shift in found.affine] == [
        ("1.weight", "1.bias"),
        ("4.weight", "4.bias"),
    ]
    assert change(found, (x,)) < 1e-12
    copied = found.transformed(z=RNG.standard_normal(found.n_scales))
    assert torch.equal(copied[1].running_mean, module[1].running_mean)
    assert "kept, with the affine freedom of its bias" in repr(found)


def test_a_normalisation_that_is_used_twice_is_frozen_again():
    def forward(m, x):
        return m.n(m.a(x)).relu() + m.n(m.b(x)).relu()

    module = Applied(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 4), n=normalised(4, 1)).double()
    found = symmetries(module.eval(), torch.randn(5, 3).double(), batch_norm="affine")
    assert (found.n_scales, found.affine) == (0, ())
