"""`flattest symmetries`, `balance` and `bits`: what they print and write, and bad input."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import flattest as ft
from flattest.commands.app import app

SOURCE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()

def tensors():
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(12, 3, generator=generator), torch.randint(0, 2, (12,), generator=generator)
    return X.double(), y

def batches():
    X, y = tensors()
    yield from zip(X.split(5), y.split(5))
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "own", raising=False)
    import own

    X, y = own.tensors()
    np.savez(tmp_path / "data.npz", X=X.numpy(), y=y.numpy())
    return own


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_symmetries(source, tmp_path):
    result = run("symmetries", "own:network", "data.npz", "--csv", "table.csv")
    assert result.exit_code == 0, result.output
    assert "6 free scales" in result.output
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").startswith("name,layer,kind")
    for data in ("own:batches", "own:tensors"):  # many pairs, and one
        drawn = run("symmetries", "own:network", data, "--figure", "chain")
        assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "chain.png").exists()


@pytest.mark.parametrize("objective", ["trace", "quantisation"])
def test_balance(source, tmp_path, objective):
    result = run(
        *("balance", "own:network", "data.npz", "--out", "results", "--loss", "cross_entropy"),
        *("--objective", objective),
    )
    assert result.exit_code == 0, result.output
    folder = tmp_path / "results"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    net, (X, y) = source.network(), source.tensors()
    assert report["orbit"]["minimum"] == pytest.approx(
        ft.measure(net, X, y, loss="cross_entropy", symmetry="scales").orbit_minimum
    )
    assert report["after"] < report["before"]
    balanced = source.network()
    balanced.load_state_dict(load_file(folder / "model.safetensors"))
    torch.testing.assert_close(balanced(X), net(X), rtol=0, atol=1e-10)
    assert {"traces.png", "layers.csv"} <= set(report["files"])
    again = run("balance", "own:network", "data.npz", "--out", "results")
    assert again.exit_code == 2
    assert "--force" in again.output


def test_balance_can_round(source, tmp_path):
    args = ("balance", "own:network", "data.npz", "--loss", "cross_entropy", "--bits", 4)
    result = run(*args, "--objective", "quantisation", "--out", "rounded")
    assert result.exit_code == 0, result.output
    weights = load_file(tmp_path / "rounded" / "model.safetensors")
    assert len(weights["0.weight"].abs().unique()) <= 8


def test_bits(source, tmp_path):
    args = ("bits", "own:network", "data.npz", "--loss", "cross_entropy", "--out", "bits")
    result = run(*args, "--budget", 5)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "bits" / "report.json").read_text(encoding="utf-8"))
    assert set(report["bits"]) == {"0.weight", "2.weight"}
    assert report["average"] <= 5
    assert f"with rounded weights {report['rounded_loss']:.4g}" in result.output
    chosen = run(*args, "--budget", 5, "--measured", "--per-tensor", "--force")
    assert chosen.exit_code == 0, chosen.output
    low = run(*args, "--budget", "10 B", "--force")
    assert low.exit_code == 0, low.output
    assert "fewer than 4 bits" in low.output
    assert "Give --measured" in low.output


def test_measure_takes_symmetries(source):
    result = run(
        *("measure", "own:network", "data.npz", "--loss", "cross_entropy"),
        *("--symmetry", "scales", "--json", "flatness.json"),
    )
    assert result.exit_code == 0, result.output
    assert "orbit minimum" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("symmetries", "fit-folder", "data.npz"), "MODEL is 'fit-folder'"),
        (("symmetries", "own:missing", "data.npz"), "missing"),
        (("symmetries", "own:network", "data.npz", "--batch-norm", "drop"), "batch_norm must be"),
        (
            ("balance", "own:network", "data.npz", "--out", "o", "--objective", "x"),
            "objective must",
        ),
        (("balance", "own:network", "data.npz", "--out", "o", "--symmetry", "x"), "symmetry must"),
        (("bits", "own:network", "data.npz", "--out", "o", "--budget", "much"), "budget must be"),
        (("bits", "own:network", "data.npz", "--out", "o", "--budget", 1), "too small"),
        (
            ("bits", "own:network", "data.npz", "--out", "o", "--budget", 5, "--choices", "few"),
            "--choices must be",
        ),
    ],
)
def test_bad_input_is_one_sentence(source, args, message):
    extra = () if args[0] == "symmetries" else ("--loss", "cross_entropy")
    result = run(*args, *extra)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
