"""The handwritten digits of scikit-learn, drawn into samples to train on and samples to test on.

Nothing is downloaded: 1,797 images of 8 by 8 pixels come with scikit-learn. Labels may be wrong for
a share of the training samples, and images may be moved by a pixel while a network is trained.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

N_CLASSES = 10
N_TEST = 597
"""Samples that are never trained on, whatever the number of training samples."""


class Split(NamedTuple):
    """Samples to train on, with the labels given to the network, and samples to test on.

    Parameters
    ----------
    X, X_test : Tensor of shape (n, 1, 8, 8)
        Images in float64, between 0 and 1.
    y, y_test : Tensor of shape (n,)
        Classes. Some of `y` may be wrong, none of `y_test` is.
    """

    X: Float[Tensor, "n 1 8 8"]
    y: Int[Tensor, " n"]
    X_test: Float[Tensor, "m 1 8 8"]
    y_test: Int[Tensor, " m"]


def split(n_samples: int, random_state: int, *, label_noise: float = 0.0) -> Split:
    """Draw training samples and test samples.

    Parameters
    ----------
    n_samples : int
        The number of training samples, at most 1,200.
    random_state : int
        The seed of the draw. A smaller training set is the beginning of a larger one.
    label_noise : float
        The share of training labels that are replaced by another class, which is drawn uniformly.

    Returns
    -------
    Split
        The samples.

    Raises
    ------
    ValueError
        If there are not so many images.

    Examples
    --------
    >>> from flattest.uses.digits import split
    >>> drawn = split(1000, 0, label_noise=0.2)
    >>> drawn.X.shape, len(drawn.y_test), int((drawn.y != split(1000, 0).y).sum())
    (torch.Size([1000, 1, 8, 8]), 597, 200)
    """
    images, classes = _images()
    if not 1 <= n_samples <= len(images) - N_TEST:
        raise ValueError(
            f"n_samples must be between 1 and {len(images) - N_TEST:,}, not {n_samples}: "
            f"{N_TEST} of {len(images):,} images are for the test."
        )
    rng = np.random.default_rng(random_state)
    order = rng.permutation(len(images))
    test, train = order[:N_TEST], order[N_TEST:]
    # Drawn for all samples, so that those which two sizes share have the same labels.
    draws, moves = rng.random(len(train)), rng.integers(1, N_CLASSES, len(train))
    chosen = train[:n_samples]
    wrong = np.argsort(draws[:n_samples])[: round(label_noise * n_samples)]
    labels = classes[chosen].copy()
    labels[wrong] = (labels[wrong] + moves[wrong]) % N_CLASSES
    return Split(
        torch.from_numpy(images[chosen]),
        torch.from_numpy(labels),
        torch.from_numpy(images[test]),
        torch.from_numpy(classes[test]),
    )


def shifted(X: Float[Tensor, "n 1 8 8"], generator: torch.Generator) -> Float[Tensor, "n 1 8 8"]:
    """Move every image by up to one pixel each way, and fill with blank.

    Parameters
    ----------
    X : Tensor of shape (n, 1, 8, 8)
        Images.
    generator : torch.Generator
        For the nine moves, which are equally likely.

    Returns
    -------
    Tensor
        The moved images.

    Examples
    --------
    >>> import torch
    >>> from flattest.uses.digits import shifted
    >>> shifted(torch.ones(1, 1, 8, 8), torch.Generator().manual_seed(0)).sum() >= 49
    tensor(True)
    """
    padded = torch.nn.functional.pad(X, (1, 1, 1, 1))[:, 0]
    moves = torch.randint(3, (2, len(X), 1), generator=generator)
    rows, columns = moves + torch.arange(8)
    samples = torch.arange(len(X))[:, None, None]
    return padded[samples, rows[:, :, None], columns[:, None, :]][:, None]


@functools.cache
def _images() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 1, 8, 8) / 16, y.astype(np.int64)
