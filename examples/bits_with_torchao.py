"""
Bits by layer, rounded by torchao
=================================

:func:`flattest.allocate_bits` chooses the bits of each weight by the flatness of the network, and
returns a mapping from the names of weights to bits. This example hands it to torchao, which stores
the integers and computes with them. It needs ``pip install torchao`` (0.18 or later).
"""  # noqa: D205, D400

# %%
# A network that classifies handwritten digits.
import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

import flattest as ft

images, classes = load_digits(return_X_y=True)
X, y = torch.from_numpy(images).float() / 16, torch.from_numpy(classes)
train, test = slice(None, None, 2), slice(1, None, 2)

torch.manual_seed(0)
layers = (nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
net = nn.Sequential(*layers)
optimiser = torch.optim.Adam(net.parameters(), lr=0.005)
for _ in range(400):
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(X[train]), y[train]).backward()
    optimiser.step()
net.eval()

# %%
# How many bits for which weight? Five on average, and at least four, where the second order that
# bits are chosen by ends.
flatness = ft.measure(net, X[train][:300], y[train][:300], loss="cross_entropy")
chosen = ft.allocate_bits(flatness, net, budget=5, bits=range(4, 9))
print(chosen)

# %%
# torchao takes one configuration for each parameter. It has integers of one to eight bits, with one
# scale for each output channel, which is what ``per_channel=True`` means in
# :func:`flattest.quantise`.
from torchao.quantization import FqnToConfig, IntxWeightOnlyConfig, quantize_  # noqa: E402
from torchao.quantization.granularity import PerAxis  # noqa: E402


def with_torchao(model: nn.Module, bits: dict[str, int]) -> nn.Module:
    """Return a copy of a model with some weights as integers of torchao."""
    configurations = {
        name: IntxWeightOnlyConfig(getattr(torch, f"int{number}"), PerAxis(0))
        for name, number in bits.items()
    }
    result = copy.deepcopy(model)
    quantize_(result, FqnToConfig(configurations), filter_fn=None)
    return result


@torch.no_grad()
def described(model: nn.Module) -> str:
    """Return the accuracy on new digits and the divergence from the network as it was."""
    found, expected = model(X[test]).log_softmax(1), net(X[test]).log_softmax(1)
    divergence = float((expected.exp() * (expected - found)).sum(1).mean())
    accuracy = float((found.argmax(1) == y[test]).float().mean())
    return f"accuracy {accuracy:.3f}, divergence {divergence:.4f}"


uniform = dict.fromkeys(chosen, 5)
print("as it was:           ", described(net))
print("5 bits, torchao:     ", described(with_torchao(net, uniform)))
print("5 bits, flattest:    ", described(ft.quantise(net, uniform, per_channel=True)))
print("by layer, torchao:   ", described(with_torchao(net, chosen)))
print("by layer, flattest:  ", described(ft.quantise(net, chosen, per_channel=True)))

# %%
# Both round to multiples of one step for each output channel. With b bits the largest weight is
# :math:`2^{b-1} - 1` steps of flattest and :math:`2^{b-1} - 1/2` of torchao, which cuts the half
# off: the figures differ a little.
first = with_torchao(net, chosen)[0].weight
print(type(first).__name__, first.dequantize()[0, :3])
