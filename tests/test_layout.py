"""The layout of the package: imports flow one way, files stay small, names say what is inside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "flattest"
ROOT = Path(__file__).parent.parent / "src" / PACKAGE

# Bottom to top: a module imports only from entries above it in this list, which lie below it in
# the package. An entry is a module or a whole subpackage; within a subpackage imports are free.
LAYERS = [
    "_version",
    "validation",
    "activations",
    "networks",
    "surgery",
    "datasets",
    "closed_form",
    "bounds",
    "flatness",
    "symmetry",
    "interpolators",
    "regression",
    "figures",
    "output_folder",
    "sweeps",
    "study",
    "tables",
    "demo",
    "terminal",
    "command_errors",
    "sweep_command",
    "reproduce_command",
    "cli",
]
MAX_LINES = 420
VAGUE_NAMES = {"common", "helpers", "misc", "utils"}

FILES = sorted(ROOT.rglob("*.py"))
TOP = {"__init__.py", "__main__.py"}  # the public API and `python -m` may import everything
LAYERED_FILES = [path for path in FILES if path.relative_to(ROOT).as_posix() not in TOP]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _layer(path: Path) -> str:
    """Return the top-level module or subpackage to which a file belongs."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported_layers(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (layer, line) for every import from the package; the bare package is layer ""."""
    package = (PACKAGE, *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # "from flattest import networks" imports a module when there is one of that name.
            targets = [[*base, alias.name] for alias in node.names] if len(base) == 1 else [base]
        else:
            continue
        for target in targets:
            if target[0] != PACKAGE:
                continue
            layer = target[1] if len(target) > 1 else ""
            known = layer in LAYERS or (ROOT / layer).is_dir() or (ROOT / f"{layer}.py").is_file()
            yield (layer if known else ""), node.lineno


def test_the_package_has_files() -> None:
    assert FILES, f"no Python files under {ROOT}"


@pytest.mark.parametrize("path", LAYERED_FILES, ids=_name)
def test_every_module_is_in_the_list_of_layers(path: Path) -> None:
    assert _layer(path) in LAYERS, (
        f"{_name(path)} is in no layer; put {_layer(path)!r} in LAYERS above all it imports from"
    )


@pytest.mark.parametrize("path", LAYERED_FILES, ids=_name)
def test_imports_only_go_down(path: Path) -> None:
    own = _layer(path)
    if own not in LAYERS:
        pytest.skip("the test above reports it")
    inside_subpackage = (ROOT / own).is_dir()
    below = set(LAYERS[: LAYERS.index(own)]) | ({own} if inside_subpackage else set())
    upward = [
        f"line {line} imports {imported or 'the package itself'}"
        for imported, line in _imported_layers(path)
        if imported not in below
    ]
    assert not upward, f"{_name(path)}: {'; '.join(upward)}; {own} may import only layers below it"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{_name(path)} has {lines} lines, over {MAX_LINES}; split it"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_names_say_what_is_inside(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    vague = VAGUE_NAMES.intersection(part.strip("_") for part in parts)
    assert not vague, f"{_name(path)}: {', '.join(vague)} says nothing; name the subject"
