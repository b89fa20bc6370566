"""What scales and bits by layer are worth before rounding, on MobileNetV2 and on digits.

``make bench-quantisation`` installs photographs and weights and runs this, in about ten minutes on
one core. Each network is measured once, with batch normalisation folded, and rounded as
it is (``raw``), with ranges equalised (``range``), at the least trace (``trace``) and at the least
noise of rounding (``quantisation``): per tensor and per channel, with biases corrected and without.

MobileNetV2 is measured, and its biases are corrected, on crops from the left sides of eight
photographs; divergence from the unrounded network and agreement with it are those on crops from
the right sides, with the standard error over crops. Networks on digits are measured on 300 images
of the half that they are trained on; accuracy is that on the other half. ``--only`` renews one of
the two. Writes ``benchmarks/results/quantisation.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import RESULTS, write
from quantisation_networks import DIGITS, mobilenet, photographs, trained_on_digits
from scipy import sparse
from torch import Tensor, nn

import flattest as ft
from flattest.flatness import Flatness
from flattest.modules.balancing.equalisation import equalise
from flattest.modules.balancing.rounding_noise import minimise_noise, noise
from flattest.modules.measuring import measure_on_orbit
from flattest.modules.orbit_minimum import layers_of

BITS = (8, 6, 5, 4, 3)


@contextlib.contextmanager
def timed(seconds: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Note how long something takes, on the clock and on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    seconds[name] = {
        "clock": time.perf_counter() - clock,
        "processor": time.process_time() - processor,
    }


def scaled(
    net: nn.Module, X: Tensor, y: Tensor, rtol: float
) -> tuple[dict[str, nn.Module], Flatness, dict[str, Any]]:
    """Return a network at its scales, its flatness as it is, and what finding them took."""
    seconds: dict[str, dict[str, float]] = {}
    with timed(seconds, "measure"):
        found = measure_on_orbit(
            net,
            X,
            y,
            loss="cross_entropy",
            symmetry="scales",
            batch_norm="fold",
            residual="none",
            rtol=rtol,
            random_state=0,
        )
    assert found.symmetries is not None
    assert found.position is not None
    layers = list(layers_of(found.symmetries, found.flatness.diagonal(), found.module).values())
    channels = sparse.csr_array(found.symmetries.tensors[0].channels)
    with timed(seconds, "range"):
        equal = equalise(layers, channels)
    with timed(seconds, "quantisation"):
        best = minimise_noise(layers, channels)
    places = {
        "raw": np.zeros_like(equal),
        "range": equal,
        "trace": found.position.z,
        "quantisation": best.log_scales,
    }
    versions = {name: found.symmetries.transformed(found.module, z) for name, z in places.items()}
    facts = {
        "noise": {name: noise(layers, channels, z) for name, z in places.items()},
        "gap": best.gap / best.value,
        "steps": best.n_steps,
        "converged": best.converged,
        "trace": found.flatness.gauss_newton,
        "orbit_minimum": found.flatness.orbit_minimum,
        "scales": found.symmetries.n_scales,
        "seconds": seconds,
    }
    return versions, found.flatness, facts


def rounded_versions(
    versions: dict[str, nn.Module], X: Tensor, judge: Callable[[nn.Module], dict[str, float]]
) -> list[dict[str, Any]]:
    """Round every version in every way, and judge it."""
    rows = []
    for name, version in versions.items():
        for bits in BITS:
            for corrected in (False, True):
                for per_channel in (False, True):
                    rounded = ft.quantise(
                        version,
                        bits,
                        per_channel=per_channel,
                        correct_bias=X if corrected else None,
                    )
                    way = {"bits": bits, "corrected": corrected, "per_channel": per_channel}
                    rows.append({"scales": name, **way, **judge(rounded)})
        print(f"rounded: {name}", flush=True)
    return rows


def by_layer(
    net: nn.Module, flatness: Flatness, X: Tensor, judge: Callable[[nn.Module], dict[str, float]]
) -> list[dict[str, Any]]:
    """Compare uniform bits with bits by layer, per channel and corrected."""
    rows = []
    for budget in (6, 5, 4, 3):
        choices: dict[str, Any] = {"uniform": budget}
        for weighed in ("trace", "diagonal"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*fewer than 4 bits")
                choices[weighed] = ft.allocate_bits(flatness, net, budget=budget, weighed=weighed)
        for name, bits in choices.items():
            rounded = ft.quantise(net, bits, per_channel=True, correct_bias=X)
            average = budget if name == "uniform" else bits.average
            rows.append({"budget": budget, "choice": name, "average": average, **judge(rounded)})
    return rows


def run_mobilenet(size: int) -> dict[str, Any]:
    """Round MobileNetV2."""
    net, (X, others) = mobilenet(), photographs(size)
    with torch.no_grad():
        labels = net(X).softmax(dim=1)
        expected = net(others).log_softmax(dim=1)

    @torch.no_grad()
    def judge(rounded: nn.Module) -> dict[str, float]:
        found = rounded(others).log_softmax(dim=1)
        each = (expected.exp() * (expected - found)).sum(dim=1).double()
        agreement = (found.argmax(dim=1) == expected.argmax(dim=1)).double().mean()
        return {
            "divergence": float(each.mean()),
            "standard_error": float(each.std() / len(each) ** 0.5),
            "agreement": float(agreement),
        }

    versions, flatness, facts = scaled(net, X, labels, rtol=0.03)
    print("MobileNetV2", facts, flush=True)
    return {
        "size": size,
        **facts,
        "rounded": rounded_versions(versions, X, judge),
        "bits_by_layer": by_layer(versions["raw"], flatness, X, judge),
    }


def run_digits(seeds: int) -> list[dict[str, Any]]:
    """Train networks on digits and round them."""
    results = []
    for kind in DIGITS:
        for seed in range(seeds):
            net, (X, y), (others, classes) = trained_on_digits(kind, seed)

            @torch.no_grad()
            def judge(
                rounded: nn.Module, others: Tensor = others, classes: Tensor = classes
            ) -> dict[str, float]:
                return {"accuracy": float((rounded(others).argmax(1) == classes).double().mean())}

            versions, flatness, facts = scaled(net, X[:300], y[:300], rtol=0.01)
            results.append(
                {
                    "network": kind,
                    "seed": seed,
                    **judge(net),
                    **facts,
                    "rounded": rounded_versions(versions, X, judge),
                    "bits_by_layer": by_layer(versions["raw"], flatness, X, judge),
                }
            )
            print(kind, seed, judge(net), facts, flush=True)
    return results


def main() -> None:
    """Run both parts, or renew one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="pixels along a side")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("digits", "mobilenet_v2"))
    parser.add_argument("--out", type=Path, default=RESULTS / "quantisation.json")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if options.only and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))["results"]
    if options.only != "mobilenet_v2":
        results["digits"] = run_digits(options.seeds)
    if options.only != "digits":
        results["mobilenet_v2"] = run_mobilenet(options.size)
    write(options.out, results)


if __name__ == "__main__":
    main()
