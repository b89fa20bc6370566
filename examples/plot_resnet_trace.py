"""
The exact trace of a ResNet-20
==============================

The usual way to the trace of a Hessian is Hutchinson's estimator: the mean of :math:`v^T H v`
over random signs :math:`v`. Packages such as PyHessian do that. For a network whose outputs are
piecewise linear in its parameters, layer by layer, the trace is known exactly for the price of a
few backward passes. Here are both, on a ResNet-20 trained on the digits of scikit-learn.
"""

# %%
# The network is that of He et al. (2016), for images of one colour.

import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import flattest as ft


class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            for number in range(3):
                blocks.append(Block(channels, width, stride if number == 0 else 1))
                channels = width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


torch.manual_seed(0)
images, classes = load_digits(return_X_y=True)
order = torch.randperm(len(images))
X = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)[order] / 16
y = torch.from_numpy(classes)[order]
X, X_test, y, y_test = X[:1347], X[1347:], y[:1347], y[1347:]


def train(net, epochs):
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    net.train()
    for _ in range(epochs):
        for some in torch.randperm(len(X)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(X[some]), y[some]).backward()
            optimiser.step()
    return net.eval()


def accuracy(net):
    with torch.no_grad():
        return (net(X_test).argmax(1) == y_test).float().mean().item()


net = train(ResNet20(), epochs=3)
print(f"{accuracy(net):.1%} of the test images are recognised")

# %%
# Exactly
# -------
#
# The outputs are piecewise linear in every parameter tensor (batch normalisation is in evaluation
# mode), so that the trace is that of the Gauss-Newton matrix. ``print`` says so of each figure.

some, labels = X[:64], y[:64]
start = time.perf_counter()
flatness = ft.measure(net, some, labels, loss="cross_entropy")
seconds = time.perf_counter() - start
print(flatness)
print(f"{seconds:.1f} s")

# %%
# By random signs
# ---------------
#
# Hutchinson's estimator in plain PyTorch: one product with the Hessian for each probe. The probes
# are independent, so groups of forty are what five users would see.

parameters = list(net.parameters())
gradient = torch.autograd.grad(F.cross_entropy(net(some), labels), parameters, create_graph=True)


def probe():
    signs = [torch.randint(0, 2, p.shape).float() * 2 - 1 for p in parameters]
    product = torch.autograd.grad(gradient, parameters, signs, retain_graph=True)
    return sum((v * h).sum().item() for v, h in zip(signs, product, strict=True))


start = time.perf_counter()
probes = torch.tensor([probe() for _ in range(200)]).reshape(5, 40)
print(f"{time.perf_counter() - start:.1f} s for 200 probes")
error = probes.std() / probes.mean()
print(f"standard deviation of one probe: {error:.0%} of the mean")
print(f"probes for a standard error of 1 %: {(error / 0.01) ** 2:,.0f}")

# %%
# Each line is the running mean of one user. Nothing in the exact value is random.

counts = torch.arange(1, 41)
means = probes.cumsum(1) / counts
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(counts, means.T, color="#56B4E9", lw=1.2)
ax.plot([], [], color="#56B4E9", label="five runs of Hutchinson's estimator")
ax.axhline(flatness.trace, color="#D55E00", lw=2, label="exact")
ax.set(xlabel="probes", ylabel="trace of the Hessian", xlim=(1, 40))
ax.set_title("A ResNet-20: exact trace, and five runs of Hutchinson's estimator")
ax.legend(frameon=False)
plt.show()

# %%
# Layer by layer, where estimates are worse still, exact figures add up to the whole:

table = flatness.per_layer.nlargest(5, "trace")[["name", "kind", "n_parameters", "trace", "share"]]
print(table.to_string(index=False, float_format="{:.3g}".format))
