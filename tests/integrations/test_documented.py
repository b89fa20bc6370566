"""The public classes follow numpydoc, and say which extra brings what they need."""

import importlib
import subprocess
import sys

import pytest
from numpydoc.validate import validate

CLASSES = {
    "FlatnessMonitor": "flattest.integrations",
    "Reading": "flattest.integrations",
    "lightning.FlatnessCallback": "lightning",
    "transformers.FlatnessCallback": "transformers",
    "laplace.FlattestGGN": "laplace",
}
CHECKS = {"GL03", "GL08", "SS03", "PR01", "PR02", "PR03", "PR04", "PR10", "RT03", "EX01"}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_and_their_methods_are_documented(name):
    pytest.importorskip(CLASSES[name])
    path = f"flattest.integrations.{name}"
    module, _, title = path.rpartition(".")
    found = getattr(importlib.import_module(module), title)
    paths = {path: CHECKS}
    for method, value in vars(found).items():
        if not method.startswith("_") and callable(value):
            paths[f"{path}.{method}"] = CHECKS - {"EX01"}
    for each, checks in paths.items():
        errors = [f"{c}: {text}" for c, text in validate(each)["errors"] if c in checks]
        assert not errors, f"{each}\n" + "\n".join(errors)


@pytest.mark.parametrize("package", ["lightning", "transformers", "laplace"])
def test_a_missing_package_is_named_with_the_extra(package):
    code = f"import sys\nsys.modules[{package!r}] = None\nimport flattest.integrations.{package}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert f"needs {package}, which is not installed" in last
    assert "pip install 'flattest[integrations]'" in last
