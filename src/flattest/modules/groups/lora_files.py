"""LoRA adapters in the files that PEFT writes: safetensors only, found by their names."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from flattest.errors import FlattestError
from flattest.files import write_file
from flattest.modules.groups.lora_factors import LoraBalance, balance_factors

_NAME = re.compile(r"^(?P<layer>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(?P<rest>\..+)?$")


def balance_file(path: Path, output: Path) -> dict[str, LoraBalance]:
    """Balance all adapters of a file, and write another one.

    Parameters
    ----------
    path : Path
        What PEFT's ``save_pretrained`` wrote as ``adapter_model.safetensors``.
    output : Path
        The file to write.

    Returns
    -------
    dict of str to LoraBalance
        By the name of the adapted layer.

    Raises
    ------
    FlattestError
        If the file cannot be read, or holds no adapters, or halves of some.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise FlattestError(
            f"{path} is no .safetensors file; others can run code when they are opened. "
            "Save the adapter with save_pretrained(folder, safe_serialization=True)."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise FlattestError(f"{path} does not exist.") from error
    except (OSError, SafetensorError) as error:
        raise FlattestError(f"{path} cannot be read as safetensors: {error}") from error
    results: dict[str, LoraBalance] = {}
    for layer, (name_a, name_b) in _pairs(path, tensors).items():
        A, B = tensors[name_a], tensors[name_b]
        rank = A.shape[0] if A.ndim >= 2 else -1
        flat_a = A.reshape(rank, -1) if rank > 0 else A
        flat_b = B.reshape(len(B), -1) if B.ndim >= 2 else B
        if not (A.is_floating_point() and B.dtype == A.dtype):
            raise FlattestError(f"The factors of {layer} in {path} are no floats of one type.")
        if rank <= 0 or flat_b.ndim != 2 or flat_b.shape[1] != rank:
            raise FlattestError(
                f"The factors of {layer} in {path} do not fit: shapes {tuple(A.shape)} and "
                f"{tuple(B.shape)}."
            )
        if not (torch.isfinite(A).all() and torch.isfinite(B).all()):
            raise FlattestError(f"The factors of {layer} in {path} contain NaN or infinity.")
        found = balance_factors(flat_a, flat_b)
        results[layer] = found._replace(A=found.A.reshape(A.shape), B=found.B.reshape(B.shape))
        tensors[name_a] = results[layer].A.contiguous()
        tensors[name_b] = results[layer].B.contiguous()
    write_file(output, save(tensors, metadata))
    return results


def _pairs(path: Path, tensors: dict[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Return the names of both factors by layer."""
    halves: dict[str, dict[str, str]] = {}
    for name in tensors:
        match = _NAME.match(name)
        if match:
            suffix = re.sub(r"^\.|\.?weight$", "", match["rest"] or "")
            layer = match["layer"] + (f" ({suffix.strip('.')})" if suffix.strip(".") else "")
            halves.setdefault(layer, {})[match["side"]] = name
    if not halves:
        raise FlattestError(
            f"{path} holds no LoRA adapter: no tensor is named like layer.lora_A.weight."
        )
    for layer, found in halves.items():
        if len(found) < 2:
            other = "B" if "A" in found else "A"
            raise FlattestError(f"{path} lacks lora_{other} of {layer}.")
    return {layer: (found["A"], found["B"]) for layer, found in halves.items()}
