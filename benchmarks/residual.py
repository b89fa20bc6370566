"""What probing the rest of a Hessian trace costs: its standard error per double backward pass.

Networks with smooth activations, with random weights and trained: multilayer perceptrons on 64
digits, with and without ways around their layers, and the small GPT of the traces' benchmark on
four sequences: trained on a Markov chain and measured on new sequences of it, or with random
weights and targets. What is exact has no error. Written to ``benchmarks/results/residual.json``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from environment import RESULTS, write
from sklearn.datasets import load_digits
from torch import Tensor, nn
from trace_problems import Problem, fresh_gpt, small_gpt

import flattest as ft
from flattest.modules.residual import residual_trace

STEPS = 300


class Around(nn.Module):
    """A layer with a way around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.layer(x))


def perceptron(hidden: int, steps: int, around: bool = False) -> Problem:
    """Make a perceptron of width 64, and train it on the digits that it is measured on."""
    parts: list[nn.Module] = [nn.Linear(64, 64), nn.GELU()]
    for _ in range(hidden - 1):
        parts += [Around(64)] if around else [nn.Linear(64, 64), nn.GELU()]
    model = nn.Sequential(*parts, nn.Linear(64, 10))
    X, y = load_digits(return_X_y=True)
    X, y = torch.from_numpy(X[:64]).float() / 16 - 0.3, torch.from_numpy(y[:64])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimiser.step()
    model.zero_grad()
    return Problem(model.eval(), X, y, nn.CrossEntropyLoss())


def networks(names: list[str], steps: int) -> Iterator[tuple[str, bool, Problem]]:
    """Make the networks of some kinds, each with random weights and trained."""
    kinds = {
        "GELU MLP": [
            (f"GELU MLP, {hidden} hidden layers", lambda n, hidden=hidden: perceptron(hidden, n))
            for hidden in (2, 3, 5)
        ],
        "around": [("GELU MLP with ways around", lambda n: perceptron(4, n, around=True))],
        "GPT": [("small GPT", lambda n: small_gpt() if n else fresh_gpt())],
    }
    for name, makers in kinds.items():
        for title, maker in makers if name in names else []:
            for count in (0, steps):
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    yield title, count > 0, maker(count)


def measure(title: str, trained: bool, problem: Problem, probes: int) -> dict[str, Any]:
    """Measure both parts of the trace, and the noise of the probes."""
    model, X, y, loss = problem
    whole = ft.measure(model, X, y, loss=loss, residual="none", rtol=0.02, random_state=0)

    def linearised() -> tuple[Tensor, Tensor]:
        z = model(X)
        leaf = z.detach().requires_grad_()
        return z, torch.autograd.grad(loss(leaf, y), leaf)[0]

    start = time.process_time()
    found = residual_trace(
        linearised,
        dict(model.named_parameters()),
        method="estimate",
        n_probes=probes,
        random_state=0,
    )
    hessian = whole.gauss_newton + found.value
    per_product = (found.standard_error or 0.0) * math.sqrt(max(1, found.double_backwards))
    row = {
        "network": title,
        "trained": trained,
        "loss": whole.loss,
        "gauss_newton": whole.gauss_newton,
        "residual": found.value,
        "double_backwards": found.double_backwards,
        "standard_error": found.standard_error,
        "per_double_backward": per_product / abs(hessian),
        "per_double_backward_of_gauss_newton": per_product / whole.gauss_newton,
        "seconds": time.process_time() - start,
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["GELU MLP", "around", "GPT"])
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--probes", type=int, default=16, help="of each group of layers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(*network, options.probes) for network in networks(options.networks, options.steps)
    ]
    write(RESULTS / "residual.json", rows)


if __name__ == "__main__":
    main()
