"""The layout of the package: imports flow one way, files stay small, names say what is inside."""

import ast
import io
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "flattest"
ROOT = Path(__file__).parent.parent / "src" / PACKAGE

# Bottom to top: a module imports only from entries above it in this list, which lie below it in
# the package. An entry is a module or a whole subpackage. Two-layer networks and, later, modules of
# any kind are worlds of their own; `measuring` is the door, the only room that knows both, and
# stands above all that works with one kind only.
LAYERS = [
    "_version",
    "errors",
    "references",
    "wording",
    "threads",
    "progress",
    "validation",
    "files",
    "orbit",
    "pages",
    "flatness",
    "modules",
    "quantisation",
    "two_layer",
    "datasets",
    "interpolators",
    "regression",
    "figures",
    "sweeps",
    "study",
    "tables",
    "measuring",
    "integrations",
    "uses",
    "commands",
]
MAX_CODE_LINES = 300
"""Docstrings, comments and blank lines do not count: a file is never squeezed for their sake."""
VAGUE_NAMES = {"common", "helpers", "misc", "utils"}

FILES = sorted(ROOT.rglob("*.py"))
TOP = {"__init__.py", "__main__.py"}  # the public API and `python -m` may import everything
LAYERED_FILES = [path for path in FILES if path.relative_to(ROOT).as_posix() not in TOP]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _layer(path: Path) -> str:
    """Return the top-level module or subpackage to which a file belongs."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[Path | None, int]]:
    """Yield (file, line) for every import from the package; None for the package itself.

    Imports inside functions count, those for type checkers only do not.
    """
    package = (PACKAGE, *path.relative_to(ROOT).parent.parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == PACKAGE:
                yield _file(target[1:]), node.lineno


def _file(parts: list[str]) -> Path | None:
    """Return the file of a module, or of the module in which a name is."""
    for names in (parts, parts[:-1]):
        for candidate in (ROOT.joinpath(*names, "__init__.py"), ROOT.joinpath(*names)):
            found = candidate if candidate.suffix == ".py" else candidate.with_suffix(".py")
            if names and found.is_file():
                return found
    return None


def _code_lines(path: Path) -> int:
    """Count the lines that hold code."""
    text = path.read_text(encoding="utf-8")
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docstrings)


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
        f"line {line} imports {_name(imported) if imported else 'the package itself'}"
        for imported, line in _imports(path)
        if imported is None or _layer(imported) not in below
    ]
    assert not upward, f"{_name(path)}: {'; '.join(upward)}; {own} may import only layers below it"


def test_the_two_worlds_do_not_know_each_other() -> None:
    worlds = {"modules": "two_layer", "two_layer": "modules"}
    strangers = [
        f"{_name(path)} imports {_name(found)}"
        for path in LAYERED_FILES
        for found, _ in _imports(path)
        if found is not None and worlds.get(_layer(path)) == _layer(found)
    ]
    assert not strangers, f"{'; '.join(strangers)}; only `measuring` knows both"


def test_what_predicts_knows_nothing_of_fits() -> None:
    # Fits are made with torch, which takes seconds to load; constants are shared.
    here, constants = ROOT / "regression" / "prediction", ROOT / "regression" / "tuning.py"
    strangers = [
        f"{_name(path)} imports {_name(found) if found else 'the package itself'}"
        for path in [*here.glob("*.py"), constants]
        for found, _ in _imports(path)
        if found is None or (found != constants and found.parent != here)
    ]
    assert not strangers, f"{'; '.join(strangers)}; predictions are made without what fits"


def test_no_import_runs_in_a_circle() -> None:
    # Also within a package, where the layers leave imports free.
    graph = {
        _name(path): {_name(found) for found, _ in _imports(path) if found not in (None, path)}
        for path in FILES
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert len(order) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_small(path: Path) -> None:
    lines = _code_lines(path)
    assert lines <= MAX_CODE_LINES, (
        f"{_name(path)} has {lines} lines of code, over {MAX_CODE_LINES}; split it"
    )


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_names_say_what_is_inside(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    vague = VAGUE_NAMES.intersection(part.strip("_") for part in parts)
    assert not vague, f"{_name(path)}: {', '.join(vague)} says nothing; name the subject"
