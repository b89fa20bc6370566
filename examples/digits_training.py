"""The handwritten digits of scikit-learn, and a loop that trains networks on them."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return 1,347 images of shape (1, 8, 8) and their classes, and 450 more to test with."""
    images, classes = load_digits(return_X_y=True)
    X = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    y = torch.from_numpy(classes)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    X, y = X[order], y[order]
    return X[:1347], y[:1347], X[1347:], y[1347:]


def train(net: nn.Module, X: Tensor, y: Tensor, *, epochs: int, rate: float = 0.01) -> nn.Module:
    """Train with Adam on batches of 64, and return the network in evaluation mode."""
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    net.train()
    for _ in range(epochs):
        for some in torch.randperm(len(X)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(X[some]), y[some]).backward()
            optimiser.step()
    return net.eval()


def accuracy(net: nn.Module, X: Tensor, y: Tensor) -> float:
    """Return the share of images whose class is recognised."""
    with torch.no_grad():
        return (net(X).argmax(1) == y).float().mean().item()
