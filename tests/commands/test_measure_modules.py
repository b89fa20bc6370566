"""`flattest measure` for modules: what it prints and writes, and one sentence for bad input."""

import csv
import json
import signal
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import flattest as ft
from flattest.commands.app import app

SOURCE = """
import signal
import torch
from torch import nn

def network(activation=nn.GELU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), activation(), nn.Linear(4, 2))

def tensors():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 3, generator=generator), torch.randint(0, 2, (12,), generator=generator)

def batches():
    X, y = tensors()
    yield from zip(X.split(5), y.split(5))

def interrupted():
    X, y = tensors()
    yield X[:5], y[:5]
    signal.raise_signal(signal.SIGINT)
    yield X[5:], y[5:]

def loss(z, y):
    return nn.functional.cross_entropy(z, y)

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return {"scores": self.body(x)}
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    import mine

    yield mine
    sys.modules.pop("mine", None)


def run(*arguments):
    return CliRunner().invoke(app, ["measure", *(str(argument) for argument in arguments)])


def sentence(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    text = " ".join(result.stderr.split())
    assert text.startswith("Error: ")
    assert text.endswith(".")
    return text


def measured(result, path="out.json"):
    assert result.exit_code == 0, result.output
    with open(path, encoding="utf-8") as file:
        return json.load(file)


LOSS = ("--loss", "cross_entropy")
JSON = ("--json", "out.json", "--force")


def test_batches_of_a_function(source):
    result = run("mine:network", "mine:batches", *LOSS, "--csv", "out.csv", *JSON, "--panel")
    found = measured(result)
    expected = ft.measure(
        source.network().eval(), list(source.batches()), loss="cross_entropy", panel=True
    )
    assert found["trace"] == pytest.approx(expected.trace, rel=1e-6)
    assert found["fisher_rao"] == pytest.approx(expected.fisher_rao, rel=1e-6)
    assert found["n_samples"] == 12
    with open("out.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    for name in ("0.weight", "relative flatness", "Fisher-Rao norm", "12 samples"):
        assert name in result.stdout


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_files_of_weights_and_arrays(source, form):
    model = source.network().eval()
    torch.nn.init.ones_(model[0].weight)
    save_file(model.state_dict(), "weights.safetensors")
    X, y = source.tensors()
    if form == "npz":
        np.savez("data.npz", x=X.double().numpy(), y=y.numpy())
    else:
        save_file({"x": X.double(), "y": y}, "data.safetensors")
    weights = ("--weights", "weights.safetensors")
    found = measured(run("mine.py:network", f"data.{form}", *weights, *LOSS, *JSON))
    expected = ft.measure(model, X, y, loss="cross_entropy")
    assert found["trace"] == pytest.approx(expected.trace, rel=1e-6)


def test_a_program(source):
    model = source.network().eval()
    X, _ = source.tensors()
    free = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(model, (X,), dynamic_shapes=free), "free.pt2")
    torch.export.save(torch.export.export(model, (X,)), "fixed.pt2")
    found = measured(run("free.pt2", "mine:batches", *LOSS, *JSON))
    expected = ft.measure(model, list(source.batches()), loss="cross_entropy")
    assert found["trace"] == pytest.approx(expected.trace, rel=1e-5)
    assert "export it with dynamic shapes" in sentence(run("fixed.pt2", "mine:batches", *LOSS))


def test_options_are_handed_on(source):
    chosen = ("--parameters", "0.*", "--parameters", "3.bias", "--residual", "none")
    sizes = ("--batch-size", 2, "--rtol", 0.5, "--mode", "exact")
    found = measured(run("mine:network", "mine:batches", *LOSS, *JSON, *chosen, *sizes))
    assert [layer["name"] for layer in found["layers"]] == ["0.weight", "0.bias", "3.bias"]
    assert found["trace"] is None
    assert found["n_left_out"] == 8
    found = measured(
        run("mine:Named", "mine:batches", "--output", "scores", *LOSS, *JSON, "--memory", "1 GB")
    )
    assert found["n_samples"] == 12
    eigenvalue = ("--largest-eigenvalue", "gauss_newton")
    found = measured(run("mine:network", "mine:batches", "--loss", "mine:loss", *JSON, *eigenvalue))
    assert 0 < found["largest_eigenvalue"] < found["gauss_newton"]
    by_class = ("--loss", "torch.nn:CrossEntropyLoss")
    assert run("mine:network", "mine:batches", *by_class).exit_code == 0


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_what_was_measured_before_ctrl_c_is_written(source):
    result = run("mine:network", "mine:interrupted", *LOSS, *JSON)
    assert result.exit_code == 130
    assert "Interrupted: the figures are those of the first 5 samples." in result.stderr
    with open("out.json", encoding="utf-8") as file:
        found = json.load(file)
    assert found["partial"] is True
    assert found["n_samples"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mine:network", "mine:batches"), "MSELoss takes one target for each output"),
        (("mine:network", "mine:batches", "--target", "y"), "--target is for tables"),
        ((".", "table.csv", "--loss", "mse"), "--loss is for modules"),
        ((".", "table.csv", "--panel"), "--panel is for modules"),
        (("no-such", "data.npz", "--loss", "mse"), "There is no folder 'no-such' of a fit"),
        (("mine:network", "absent.npz"), "There is no file absent.npz"),
        (("mine:network", "table.csv"), "must be an .npz or .safetensors file"),
        (("mine:nothing", "mine:batches"), "there is no function 'nothing'"),
        (("mine:network", "mine:batches", "--loss", "huber"), "loss must be one of"),
        (("mine:network", "mine:batches", "--loss", "mine:no"), "there is no function 'no'"),
        (("mine:network", "mine:batches", *LOSS, "--mode", "fast"), "mode must be one of"),
        (("mine:network", "mine:batches", *LOSS, "--memory", "much"), "memory must be a size"),
        (("mine:network", "mine:batches", *LOSS, "--parameters", "x*"), "No parameter's name"),
        (("weights.pt", "mine:batches"), "give a function that makes the module"),
    ],
)
def test_one_sentence(source, arguments, message):
    assert message in sentence(run(*arguments))


def test_files_are_not_replaced(source):
    with open("out.csv", "w", encoding="utf-8") as file:
        file.write("mine")
    assert "--csv" in sentence(run("mine:network", "mine:batches", *LOSS, "--csv", "out.csv"))
    with open("out.csv", encoding="utf-8") as file:
        assert file.read() == "mine"
