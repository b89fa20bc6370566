"""Modules and data from files and import paths: what is read, and what is refused."""

import contextlib
import os
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from flattest.commands.model_files import ModelFileError, load_data, load_module, names_module

SOURCE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

def number():
    return 3

def broken():
    raise RuntimeError("no such data")

def batches():
    yield torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


def other():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1)
    return model


@pytest.mark.parametrize("reference", ["mine:network", "mine.py:network"])
@pytest.mark.parametrize("form", ["safetensors", "state dict", "nested"])
def test_weights_come_from_the_file(folder, reference, form):
    model = other()
    path = folder / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(model.state_dict(), path)
    else:
        state = model.state_dict()
        torch.save({"epoch": 3, "model": state} if form == "nested" else state, path)
    loaded = load_module(reference, path)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_tied_weights_are_stored_once(folder):
    source = load_module("mine:Tied")
    nn.init.ones_(source.a.weight)
    save_model(source, str(folder / "tied.safetensors"))
    loaded = load_module("mine:Tied", folder / "tied.safetensors")
    assert loaded.a.weight is loaded.b.weight
    assert torch.equal(loaded.a.weight, source.a.weight)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a module and the file of its program."""
    model, X = other().eval(), torch.randn(5, 3, dtype=torch.float64)
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("n")},))
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    torch.export.save(program, path)
    return model, path


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_what_wrappers_put_before_names_is_taken_off(folder, prefix):
    module = load_module("mine:network")
    torch.save({prefix + k: v + 1 for k, v in module.state_dict().items()}, "wrapped.pt")
    other = load_module("mine:network", folder / "wrapped.pt")
    for name, tensor in module.state_dict().items():
        assert other.state_dict()[name].equal(tensor + 1)


def test_a_program_is_loaded_with_its_weights(folder, exported):
    model, path = exported
    shutil.copy(path, "m.pt2")
    X = torch.randn(3, 3, dtype=torch.float64)
    before = dict(os.environ)
    loaded = load_module("m.pt2")
    assert dict(os.environ) == before
    torch.testing.assert_close(loaded(X), model(X))
    with pytest.raises(ModelFileError, match="its own weights"):
        load_module("m.pt2", folder / "w.pt")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("entered",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_file_runs_code(folder, exported):
    (folder / "w.pt").write_bytes(pickle.dumps(Malicious()))
    torch.save({"weight": Malicious()}, folder / "w2.pt")
    np.savez(folder / "d.npz", y=np.array([Malicious()], dtype=object))
    model, path = exported
    torch.save(Malicious(), folder / "inputs.pt")
    with zipfile.ZipFile(path) as good, zipfile.ZipFile("m.pt2", "w") as bad:
        for name in good.namelist():
            inputs = name.endswith(("model.pt", "example_inputs.pt"))  # by version
            content = (folder / "inputs.pt").read_bytes() if inputs else good.read(name)
            bad.writestr(name, content)
    for call in (
        lambda: load_module("mine:network", folder / "w.pt"),
        lambda: load_module("mine:network", folder / "w2.pt"),
        lambda: load_module("m.pt2"),
        lambda: load_data("d.npz", model),
    ):
        with pytest.raises(ModelFileError):
            call()
    assert not (folder / "entered").exists()
    with contextlib.suppress(TypeError, AssertionError):
        torch.export.load("m.pt2")  # which does run it, so that the test can fail
    assert (folder / "entered").exists()


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_arrays_are_inputs_and_targets(folder, form):
    model = load_module("mine:network")
    one = {"x": torch.randn(4, 3), "labels": torch.tensor([0, 1, 1, 0])}
    several = {"input_ids": torch.arange(4), "mask": torch.ones(4), "y": torch.zeros(4)}
    for name, arrays in (("one", one), ("several", several)):
        if form == "npz":
            np.savez(f"{name}.npz", **{key: value.numpy() for key, value in arrays.items()})
        else:
            save_file(arrays, f"{name}.safetensors")
    data = load_data(f"one.{form}", model)
    np.testing.assert_array_equal(data.y, one["labels"])
    np.testing.assert_array_equal(data.X, one["x"])
    data = load_data(f"several.{form}", model)
    assert set(data.X) == {"input_ids", "mask"}
    if form == "safetensors":
        assert data.y.dtype == data.X["mask"].dtype == torch.float64
        assert data.X["input_ids"].dtype == torch.int64


def test_batches_come_from_a_function(folder):
    data = load_data("mine:batches", load_module("mine:network"))
    assert data.y is None
    assert [x.shape for x, _ in data.X] == [(2, 3)]


def test_what_names_a_module(folder):
    (folder / "odd:name").mkdir()
    named = ["a.b:c", "f.py:c", "m.pt2", "weights.pt", "fit", "fit/model.safetensors", "odd:name"]
    assert [names_module(name) for name in named] == [True] * 4 + [False] * 3


def test_one_sentence_says_what_is_wrong(folder):
    save_file({"0.weight": torch.zeros(4, 3)}, "lacks.safetensors")
    state = other().state_dict()
    save_file({**state, "more": torch.zeros(1)}, "more.safetensors")
    save_file({**state, "0.bias": torch.zeros(7)}, "shape.safetensors")
    (folder / "text.safetensors").write_text("weights", encoding="utf-8")
    (folder / "text.npz").write_text("arrays", encoding="utf-8")
    (folder / "text.pt2").write_text("program", encoding="utf-8")
    torch.save([1, 2], "list.pt")
    np.savez("none.npz", x=np.zeros(2))
    np.savez("two.npz", y=np.zeros(2), labels=np.zeros(2), x=np.zeros(2))
    np.savez("targets.npz", y=np.zeros(2))
    model = load_module("mine:network")
    cases = [
        (lambda: load_module("mine:nothing"), "there is no function 'nothing' in mine"),
        (lambda: load_module("absent:f"), "cannot be imported: ModuleNotFoundError"),
        (lambda: load_module("absent.py:f"), "'absent.py', which does not exist"),
        (lambda: load_module("mine:number"), "returned int, not a torch.nn.Module"),
        (lambda: load_module("mine:broken"), "failed with RuntimeError: no such data"),
        (lambda: load_module("w.pt"), "give a function that makes the module"),
        (lambda: load_module("absent.pt2"), "There is no file absent.pt2"),
        (lambda: load_module("text.pt2"), "no program that this PyTorch can load"),
        *(
            (lambda name=name: load_module("mine:network", folder / name), message)
            for name, message in [
                ("absent.safetensors", "There is no file"),
                ("text.safetensors", "is no safetensors file"),
                ("lacks.safetensors", "lacks 0.bias, 1.weight, 1.bias and 5 more"),
                ("more.safetensors", "has, and the module lacks, more"),
                ("shape.safetensors", r"0.bias has shape \(7,\) there, and \(4,\) in the module"),
                ("list.pt", "holds no state dict"),
            ]
        ),
        (lambda: load_data("table.csv", model), "must be an .npz or .safetensors file"),
        (lambda: load_data("absent.npz", model), "There is no file absent.npz"),
        (lambda: load_data("text.npz", model), "no .npz file of numbers"),
        (lambda: load_data("text.safetensors", model), "is no safetensors file"),
        (lambda: load_data("none.npz", model), "but has only x"),
        (lambda: load_data("two.npz", model), "labels and y"),
        (lambda: load_data("targets.npz", model), "but no inputs"),
        (lambda: load_data("mine:broken", model), "no such data"),
    ]
    for call, message in cases:
        with pytest.raises(ModelFileError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
