"""Count the symmetries of well-known architectures: free scales, linear groups, seconds, memory.

Run ``python benchmarks/symmetries.py``. It needs torchvision (0.21 or later) and transformers, from
the extra ``architectures``; weights are random. Each architecture has a process of its own, so that
its peak memory is its own; on a busy machine the seconds of processor time are those that count.
Every symmetry is checked on the example, and again on a batch of another size and, where the
architecture takes it, of another resolution or length. Writes
``benchmarks/results/symmetries.json``; `EXPECTED` are counts known beforehand.

A torchvision built for CUDA cannot load its compiled operators beside a CPU build of PyTorch. Its
models do not need them, so their registrations are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import RESULTS, write
from torch import nn

import flattest as ft

EXPECTED = {
    "MLP 64-64-32-10": 96,
    "LeNet": 70,
    "ResNet-20, identity shortcuts": 400,
    "ResNet-20, convolution shortcuts": 448,
    "resnet50": 11_456,
    "vit_b_16": 37_632,
    "swin_t": 21_120,
    "convnext_tiny": 14_688,
    "mobilenet_v3_large": 2_352,
    "GPT-2": 36_864,
    "LSTM(16)": 0,
    "RNN(16) with ReLU": 16,
}
VISION = {
    # Name and the resolution of a second batch; None where the architecture has only one.
    **dict.fromkeys(("alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d"), 160),
    **dict.fromkeys(("wide_resnet50_2", "densenet121", "squeezenet1_1", "googlenet"), 160),
    **dict.fromkeys(("shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_large"), 160),
    **dict.fromkeys(("mobilenet_v3_small", "mnasnet1_0", "regnet_x_400mf", "regnet_y_400mf"), 160),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"), 160),
    **dict.fromkeys(("swin_t", "swin_v2_t"), 160),
    **dict.fromkeys(("vit_b_16", "maxvit_t"), None),
}
Made = tuple[nn.Module, Any, Any]


def import_torchvision() -> Any:
    """Import torchvision without its compiled operators."""
    register = torch.library.register_fake

    def lenient(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register(op, *args, **kwargs)

    torch.library.register_fake = lenient  # type: ignore[assignment]
    try:
        import torchvision
    finally:
        torch.library.register_fake = register
    return torchvision


def vision(name: str) -> Callable[[], Made]:
    def make() -> Made:
        options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        model = getattr(import_torchvision().models, name)(weights=None, **options)
        size = VISION[name]
        return model, torch.randn(2, 3, 224, 224), torch.randn(3, 3, size or 224, size or 224)

    return make


class Tokens(nn.Module):
    """A language model with its embedding, that returns logits only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs, use_cache=False).logits


def language(family: str, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        import_torchvision()
        import transformers

        kind = {"T5": "T5ForConditionalGeneration", "Bert": "BertForMaskedLM"}.get(
            family, {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
        )
        config = getattr(transformers, f"{family}Config")(**options)
        model = getattr(transformers, kind)(config)

        def inputs(n: int, length: int) -> dict[str, torch.Tensor]:
            tokens = {"input_ids": torch.randint(0, config.vocab_size, (n, length))}
            if family == "T5":
                tokens["decoder_input_ids"] = torch.randint(0, config.vocab_size, (n, length - 2))
            return tokens

        return model, inputs(2, 16), inputs(3, 23)

    return make


class ResNet20(nn.Module):
    """The residual network for 32 x 32 images, with either kind of shortcut (He et al. 2016)."""

    def __init__(self, convolutions: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * 3 + [32] * 3 + [64] * 3
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, convolutions)
            for before, after in zip([16, *widths], widths, strict=False)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, convolutions: bool) -> None:
        super().__init__()
        stride = after // before
        self.a = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.b = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.extra, self.stride = after - before, stride
        self.shortcut: nn.Module | None = None
        if convolutions and stride > 1:
            convolution = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.nb(self.b(self.na(self.a(x)).relu()))
        if self.shortcut is not None:
            return (y + self.shortcut(x)).relu()
        if self.stride > 1:
            x = nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra)
            )
        return (y + x).relu()


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


def small(
    make: Callable[[], nn.Module], *shape: int, other: tuple[int, ...] = ()
) -> Callable[[], Made]:
    return lambda: (make(), torch.randn(4, *shape), torch.randn(7, *(other or shape)))


def mlp() -> nn.Module:
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)),
    )


MODELS: dict[str, Callable[[], Made]] = {
    "MLP 64-64-32-10": small(mlp, 64),
    "LeNet": small(lenet, 1, 28, 28),
    "ResNet-20, identity shortcuts": small(lambda: ResNet20(False), 3, 32, 32, other=(3, 40, 40)),
    "ResNet-20, convolution shortcuts": small(lambda: ResNet20(True), 3, 32, 32, other=(3, 40, 40)),
    "LSTM(16)": small(lambda: Recurrent(nn.LSTM(8, 16, batch_first=True)), 5, 8, other=(9, 8)),
    "RNN(16) with ReLU": small(
        lambda: Recurrent(nn.RNN(8, 16, nonlinearity="relu", batch_first=True)), 5, 8, other=(9, 8)
    ),
    **{name: vision(name) for name in VISION},
    "GPT-2": language("GPT2"),
    "Llama": language(
        "Llama",
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
    "Qwen3": language(
        "Qwen3",
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
    ),
    "BERT": language("Bert"),
    "OPT": language(
        "OPT", hidden_size=512, ffn_dim=2048, num_hidden_layers=6, num_attention_heads=8,
        word_embed_proj_dim=512, vocab_size=8000,
    ),
    "T5": language("T5", vocab_size=8000),
}  # fmt: skip


@torch.no_grad()
def spread_out(model: nn.Module) -> None:
    """Put something into tensors that are initialised with one value, which could hide mistakes."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and tensor.numel() > 1 and float(tensor.std()) == 0:
            tensor += 0.1 * torch.rand_like(tensor)


def one(name: str) -> dict[str, Any]:
    """Find the symmetries of one architecture."""
    torch.manual_seed(0)
    model, example, other = MODELS[name]()
    spread_out(model)
    ft.symmetries(nn.Linear(1, 1), torch.ones(1, 1))  # loads what is needed
    model.eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_processor = time.perf_counter(), time.process_time()
    found = ft.symmetries(model, example)
    seconds, processor = time.perf_counter() - start, time.process_time() - start_processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinds: dict[str, int] = {}
    for group in found.groups:
        label = f"{group.kind.name.lower()} of size {group.size}"
        kinds[label] = kinds.get(label, 0) + 1
    return {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "free_scales": found.n_scales,
        "expected": EXPECTED.get(name),
        "linear_groups": kinds,
        "translations": sum(group.translation is not None for group in found.groups),
        "dead_scales": len(found.dead),
        "unknown_operations": found.unknown,
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_memory_mb": peak * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "memory_before_mb": before * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "change_on_example": found.largest_change,
        "change_on_another_batch": found.check(other),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=RESULTS / "symmetries.json")
    parser.add_argument("--only", help="one architecture, whose figures are printed as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    if options.only:
        print(json.dumps(one(options.only)))
        return
    results = []
    for name in MODELS:
        command = [sys.executable, __file__, "--only", name, "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            print(f"{name}: {last}")
            results.append({"name": name, "error": last})
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        results.append(row)
        matches = {None: "", row["free_scales"]: "as expected"}.get(row["expected"], "NOT EXPECTED")
        print(
            f"{name:34s} {row['free_scales']:7,} scales {sum(row['linear_groups'].values()):5d} "
            f"groups {row['seconds']:6.1f} s "
            f"({row['processor_seconds']:5.1f} s of processor) {row['peak_memory_mb']:7,.0f} MB  "
            f"{row['change_on_another_batch']:.0e}  {matches}",
            flush=True,
        )
    write(options.out, results)


if __name__ == "__main__":
    main()
