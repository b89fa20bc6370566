"""What is loaded when: nothing heavy before it is asked for, and a missing package named."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import flattest
from flattest.tables.encoding import learn_encoding
from flattest.tables.model_file import FORMAT, MODEL_FILE
from flattest.tables.saved_model import SavedModel

INIT = Path(flattest.__file__)
HEAVY = ("matplotlib", "pandas", "sklearn", "scipy.stats", "rich")


def loaded(code: str) -> set[str]:
    """Return the modules loaded by a program, whatever it prints and however it ends."""
    program = (
        f"import atexit, sys\natexit.register(lambda: print('\\nLOADED', *sys.modules))\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_the_package_is_light() -> None:
    assert not loaded("import flattest").intersection((*HEAVY, "torch", "numpy"))


MEASURING = ("measure", "TwoLayerNet", "lower_bound", "Flatness", "sharpen")


@pytest.fixture(scope="module")
def loaded_for() -> dict[str, set[str]]:
    """Return what each name loads, in forks of one process, since PyTorch takes seconds to load."""
    program = f"""
import os, sys, torch
for name in {MEASURING}:
    sys.stdout.flush()
    if not os.fork():
        import flattest
        getattr(flattest, name)
        print(name, *sys.modules)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {name: set(modules) for name, *modules in lines}


@pytest.mark.parametrize("name", MEASURING)
def test_measuring_needs_torch_and_no_more(name: str, loaded_for: dict[str, set[str]]) -> None:
    assert "flattest.two_layer" in loaded_for[name] or "flattest.flatness" in loaded_for[name]
    assert not loaded_for[name].intersection(HEAVY)


def test_a_measurement_loads_pandas_only_for_tables() -> None:
    code = (
        "import flattest as ft\n"
        "flatness = ft.measure(ft.TwoLayerNet([[2.0]], [0.5], 'relu'), [[3.0]], [3.0])\n"
        "repr(flatness), flatness.to_dict(), ft.balance, ft.sharpen\n"
    )
    assert not loaded(code).intersection(HEAVY)
    assert "pandas" in loaded(code + "flatness.per_layer")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["--versions"], ["fit", "--no-such-option"], []]
)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    code = f"import sys\nsys.argv[1:] = {arguments}\nfrom flattest.commands import main\nmain()"
    assert not loaded(code).intersection((*HEAVY, "torch", "numpy"))


@pytest.mark.parametrize(
    "content", [None, "", "x,y\n1,2\n1,2,3\n", "x,z,y\n" + "1,a,b\nmany,c,d\n2,1e200,e\n" * 9]
)
def test_a_bad_file_is_named_at_once(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    arguments = ["fit", str(path), "--target", "y", "--out", str(tmp_path / "out")]
    code = f"import sys\nsys.argv[1:] = {arguments}\nfrom flattest.commands import main\nmain()"
    assert not loaded(code).intersection((*HEAVY[:-1], "torch"))


@pytest.mark.parametrize("command", ["predict", "measure"])
def test_a_bad_table_for_a_model_is_named_at_once(tmp_path: Path, command: str) -> None:
    encoding = learn_encoding(pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}), "y")
    metadata = {"format": FORMAT, "encoding": json.dumps(encoding.to_dict())}
    save_file({"none": np.zeros(1)}, tmp_path / "model.safetensors", metadata=metadata)
    (tmp_path / "table.csv").write_text("x,y\nlots,1\n", encoding="utf-8")
    arguments = [command, str(tmp_path), str(tmp_path / "table.csv")]
    code = f"import sys\nsys.argv[1:] = {arguments}\nfrom flattest.commands import main\nmain()"
    assert not loaded(code).intersection((*HEAVY[:-1], "torch"))


def test_predictions_need_neither_torch_nor_pandas(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 30)
    table = pd.DataFrame({"x": x, "colour": ["red", "blue", "red"] * 10, "y": x**2})
    encoding = learn_encoding(table, "y")
    model = flattest.MultiIndexRegressor(width=5, cv=2, random_state=0)
    model.fit(encoding.features(table), encoding.target_values(table))
    SavedModel.of(model, encoding).save(tmp_path / MODEL_FILE)
    (tmp_path / "table.csv").write_text("x,colour\n0.5,red\n", encoding="utf-8")
    arguments = ["predict", str(tmp_path), str(tmp_path / "table.csv"), "--intervals"]
    arguments += ["--out", str(tmp_path / "out.csv"), "--id", "colour"]
    code = f"import sys\nsys.argv[1:] = {arguments}\nfrom flattest.commands import main\nmain()"
    assert not loaded(code).intersection((*HEAVY[:-1], "scipy", "torch"))
    header, row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert header == "colour,prediction,lower,upper,extrapolation"
    assert row.startswith("red,0.2")
    assert row.endswith("False")


def test_editors_and_the_program_find_names_in_the_same_places() -> None:
    typed = {
        (node.module.removeprefix("flattest."), alias.name)
        for block in ast.parse(INIT.read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    homes = {(home, name) for home, names in flattest._HOMES.items() for name in names}
    assert typed == homes
    assert {name for _, name in homes} | {"__version__"} == set(flattest.__all__)
    assert set(flattest.__all__) <= set(dir(flattest))


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = flattest.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("package", "code", "extra"),
    [
        ("matplotlib", "flattest.LinkDisplay", "plots"),
        ("rich", "flattest.interpolate([[1.0]], [1.0], width=2, verbose=True)", "cli"),
        ("pebble", "import flattest.sweeps", "study"),
        ("jinja2", "import flattest.study.report", "study"),
        ("pyarrow", "from flattest.tables import reading; reading.read_table('x.parquet')", "cli"),
        ("typer", "from flattest.commands import main; main()", "cli"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, package: str, code: str, extra: str
) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    hidden = f"import sys\nsys.modules[{package!r}] = None\nimport flattest\n{code}\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"needs {package}, which is not installed" in last
    assert f"pip install 'flattest[{extra}]'" in last
