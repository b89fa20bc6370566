"""LoRA adapters: the same product, the least trace; from tensors and from PEFT's files."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import flattest as ft


def randn(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Adapted(torch.nn.Module):
    def __init__(self, A, B):
        super().__init__()
        self.base = torch.nn.Linear(A.shape[1], len(B)).to(A.dtype).requires_grad_(False)
        self.A, self.B = torch.nn.Parameter(A), torch.nn.Parameter(B)

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_trace_and_minimum_are_those_of_the_network(seed, rank):
    A, B, x = randn(seed, rank, 6), randn(seed + 1, 3, rank), randn(seed + 2, 9, 6)
    # Columns of the output Hessian of the squared error, averaged over 9 times 3 outputs.
    inputs = x.repeat_interleave(3, dim=0)
    cotangents = (2 / 27) ** 0.5 * torch.eye(3).double().repeat(9, 1)
    found = ft.balance_lora(A, B, inputs=inputs, cotangents=cotangents)
    y = torch.zeros(9, 3).double()
    assert ft.measure(Adapted(A, B), x, y).gauss_newton == pytest.approx(found.trace, rel=1e-12)
    balanced = ft.measure(Adapted(found.A, found.B), x, y).gauss_newton
    assert balanced == pytest.approx(found.minimum, rel=1e-12)
    assert (found.B @ found.A - B @ A).abs().max() <= 1e-12 * (B @ A).abs().max()
    again = ft.balance_lora(found.A, found.B, inputs=inputs, cotangents=cotangents)
    assert again.A.equal(found.A)
    assert again.minimum == pytest.approx(found.minimum, rel=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_without_samples_the_norms_are_least(seed, rank):
    A, B = randn(seed, rank, 8), randn(seed + 1, 7, rank)
    found = ft.balance_lora(A, B)
    nuclear = 2 * float(torch.linalg.matrix_norm(B @ A, "nuc"))
    assert found.minimum == pytest.approx(nuclear, rel=1e-12)
    assert float(found.A.square().sum() + found.B.square().sum()) == pytest.approx(nuclear)
    torch.testing.assert_close(found.A @ found.A.T, found.B.T @ found.B)


def test_more_ranks_than_outputs_have_an_infimum():
    A, B = randn(0, 4, 6), randn(1, 3, 4)
    found = ft.balance_lora(A, B)
    assert not found.attained
    norms = float(found.A.square().sum() + found.B.square().sum())
    assert found.minimum < norms < found.minimum * 1.001
    assert found.change < 1e-12
    assert ft.balance_lora(found.A, found.B).A.equal(found.A)


def test_single_precision_keeps_the_product():
    A, B = randn(0, 8, 64, dtype=torch.float32), randn(1, 32, 8, dtype=torch.float32)
    found = ft.balance_lora(A * 100, B)
    assert found.A.dtype == torch.float32
    assert found.change < 1e-6
    assert found.ratio > 10


def test_a_fresh_adapter_is_left_alone():
    A = randn(0, 4, 6)
    found = ft.balance_lora(A, torch.zeros(3, 4).double())
    assert (found.minimum, found.attained, found.change) == (0.0, False, 0.0)
    assert found.A.equal(A)
    assert found.ratio == float("inf")


def adapter(dtype=torch.float32):
    layer = "base_model.model.h.0.attn."
    return {
        f"{layer}q.lora_A.weight": randn(0, 4, 16, dtype=dtype),
        f"{layer}q.lora_B.weight": randn(1, 12, 4, dtype=dtype),
        f"{layer}v.lora_A.default.weight": 30 * randn(2, 2, 16, dtype=dtype),
        f"{layer}v.lora_B.default.weight": randn(3, 12, 2, dtype=dtype),
        "base_model.model.conv.lora_A.weight": 9 * randn(4, 2, 3, 3, 3, dtype=dtype),
        "base_model.model.conv.lora_B.weight": randn(5, 8, 2, 1, 1, dtype=dtype),
        "base_model.model.wte.lora_embedding_A": randn(6, 2, 20, dtype=dtype),
        "base_model.model.wte.lora_embedding_B": 7 * randn(7, 8, 2, dtype=dtype),
        "base_model.model.score.weight": randn(8, 2, 16, dtype=dtype),
    }


def test_files_of_peft(tmp_path):
    source, target = tmp_path / "adapter_model.safetensors", tmp_path / "balanced.safetensors"
    tensors = adapter()
    save_file(tensors, source, {"format": "pt"})
    found = ft.balance_lora(source, output=target)
    assert set(found) == {
        "base_model.model.h.0.attn.q",
        "base_model.model.h.0.attn.v (default)",
        "base_model.model.conv",
        "base_model.model.wte",
    }
    assert all(entry.ratio > 1 for entry in found.values())
    written = load_file(target)
    assert {name: (t.shape, t.dtype) for name, t in written.items()} == {
        name: (t.shape, t.dtype) for name, t in tensors.items()
    }
    for name, A in tensors.items():
        if "_A" in name:
            other = name.replace("_A", "_B")
            before = tensors[other].flatten(1) @ A.flatten(1)
            after = written[other].flatten(1) @ written[name].flatten(1)
            assert not written[name].equal(A)
            torch.testing.assert_close(after, before, rtol=0, atol=1e-6 * float(before.abs().max()))
    assert written["base_model.model.score.weight"].equal(tensors["base_model.model.score.weight"])
    with safe_open(target, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


A, B, X, C = randn(0, 2, 3), randn(1, 4, 2), randn(2, 5, 3), randn(3, 5, 4)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((A,), {}, TypeError, "B is missing"),
        ((A, B.T), {}, ValueError, "both numbers are the rank"),
        ((A, B.float()), {}, TypeError, "like A"),
        ((A[0], B), {}, ValueError, "two-dimensional"),
        ((A, B * float("nan")), {}, ValueError, "NaN"),
        ((A, B), {"inputs": X}, TypeError, "cotangents is missing"),
        ((A, B), {"cotangents": C}, TypeError, "inputs is missing"),
        ((A, B), {"inputs": X[:, :2], "cotangents": C}, ValueError, "inputs has 2 columns"),
        ((A, B), {"inputs": X, "cotangents": C[:, :2]}, ValueError, "cotangents has 2 columns"),
        ((A, B), {"inputs": X, "cotangents": C[:2]}, ValueError, "cotangents has 2 rows"),
        ((A, B), {"output": "out.safetensors"}, TypeError, "output is for files"),
        (("a.safetensors", B), {"output": "b"}, TypeError, "B must be left out"),
        (("a.safetensors",), {}, TypeError, "output is missing"),
        (("missing.safetensors",), {"output": "b.safetensors"}, ft.FlattestError, "does not exist"),
        (("adapter.bin",), {"output": "b.safetensors"}, ft.FlattestError, "no .safetensors"),
    ],
)
def test_bad_input_meets_one_sentence(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        ft.balance_lora(*args, **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"a.weight": A.float()}, "holds no LoRA adapter"),
        (lambda t: {k: v for k, v in t.items() if "q.lora_B" not in k}, "lacks lora_B"),
        (
            lambda t: {k: v[:, :1].contiguous() if "q.lora_B" in k else v for k, v in t.items()},
            "do not fit",
        ),
        (lambda t: {k: v * float("inf") for k, v in t.items()}, "NaN or infinity"),
        (lambda t: {k: v.to(torch.int32) for k, v in t.items()}, "no floats of one type"),
    ],
)
def test_files_that_are_no_adapters(tmp_path, change, message):
    source = tmp_path / "adapter_model.safetensors"
    save_file(change(adapter()), source)
    with pytest.raises(ft.FlattestError, match=message):
        ft.balance_lora(source, output=tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_no_safetensors(tmp_path):
    source = tmp_path / "adapter_model.safetensors"
    source.write_bytes(b"nothing")
    with pytest.raises(ft.FlattestError, match="cannot be read as safetensors"):
        ft.balance_lora(source, output=tmp_path / "out.safetensors")
