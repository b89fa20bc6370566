"""Trial functions: named by a string, loaded anywhere, and identified by their code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flattest._version import __version__
from flattest.errors import FlattestError
from flattest.references import load as load_function


class SweepError(FlattestError):
    """A specification, trial function or store that cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class TrialFunction:
    """A function ``trial(settings, seed)`` that can be named in a file and loaded by a worker.

    Parameters
    ----------
    reference : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    name : str
        How records are filed: the reference, without the folder of a file.
    code : str
        The version of the code that the function depends on.
    digest : str or None
        The digest of that code, which workers compare with their own; None where `code` was
        given by name.

    Examples
    --------
    >>> from flattest.sweeps import trial_function
    >>> trial_function("flattest.study.claims.symmetry:trial").name
    'flattest.study.claims.symmetry:trial'
    """

    reference: str
    name: str
    code: str
    digest: str | None = None

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with the defaults of the function's settings class filled in.

        Raises
        ------
        SweepError
            If a name is unknown or missing, or a value has another type.
        """
        cls = settings_class(load(self.reference))
        given = dict(settings)
        for name, value in given.items():
            try:
                json.dumps(value)
            except TypeError:
                raise SweepError(
                    f"Setting {name!r} of {self.name} is {value!r}; use numbers, texts and lists."
                ) from None
        if cls is None:
            return given
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in given:
            if name not in fields:
                raise SweepError(
                    f"{self.name} has no setting {name!r}; its settings are {', '.join(fields)}."
                )
        hints = typing.get_type_hints(cls)
        checked = {name: self._check(name, value, hints[name]) for name, value in given.items()}
        try:
            complete: dict[str, Any] = dataclasses.asdict(cls(**checked))
        except TypeError as error:
            missing = [
                name
                for name, field in fields.items()
                if name not in given
                and field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ]
            if not missing:
                raise SweepError(f"{self.name} refuses its settings: {error}") from error
            raise SweepError(f"{self.name} needs the setting {missing[0]!r}; give it.") from error
        except ValueError as error:
            raise SweepError(f"{self.name} refuses its settings: {error}") from error
        return complete

    def _check(self, name: str, value: Any, kind: Any) -> Any:
        """Refuse a value of another type than the field's; an int will do for a float."""
        kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        plain = [typing.get_origin(one) or one for one in kinds]
        if not all(one in (int, float, str, bool, tuple, list, dict, type(None)) for one in plain):
            return value  # the settings class itself has to judge
        if float in plain and type(value) is int:
            return float(value)
        if tuple in plain and isinstance(value, list):
            return tuple(value)
        if type(value) not in plain:
            wanted = " or ".join("None" if one is type(None) else one.__name__ for one in plain)
            raise SweepError(
                f"Setting {name!r} of {self.name} must be {wanted}, not {value!r}; correct it."
            )
        return value


def trial_function(reference: str, *, code: str | None = None) -> TrialFunction:
    """Look a trial function up and identify its code.

    The code version is a digest of what the function's result can depend on: those parts of its
    own module that it reaches by name, and the modules of the same package that these import,
    directly or not. Comments and docstrings do not count. The version of flattest does.

    Parameters
    ----------
    reference : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    code : str, optional
        A code version to use in place of the digest.

    Returns
    -------
    TrialFunction
        Ready for a sweep.

    Raises
    ------
    SweepError
        If there is no such function.

    Examples
    --------
    >>> from flattest.sweeps import trial_function
    >>> function = trial_function("flattest.study.claims.symmetry:trial")
    >>> function.complete({"factor": 10})["factor"]
    10.0
    """
    load(reference)
    place, _, attribute = reference.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).resolve()
        reference, name = f"{path}:{attribute}", f"{path.name}:{attribute}"
    else:
        name = reference
    digest = None if code else _code_version(reference)
    return TrialFunction(reference, name, code or digest or "", digest)


def check_code(reference: str, digest: str | None) -> None:
    """Refuse to run a trial function whose code in this process is not the code that is meant.

    Parameters
    ----------
    reference : str
        The trial function.
    digest : str, optional
        The digest of the code that is meant.

    Raises
    ------
    SweepError
        If it differs: the file was edited after this process, or the caller, had read it.
    """
    if digest is not None and _code_version(reference) != digest:
        raise SweepError(
            f"A worker has loaded other code of {reference!r} than the driver; restart the "
            "workers and run the sweep again."
        )


@functools.cache
def load(reference: str) -> Callable[..., Any]:
    """Import a trial function.

    Parameters
    ----------
    reference : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    SweepError
        If there is none.
    """
    return load_function(reference, what="trial", error=SweepError)


def settings_class(function: Callable[..., Any]) -> type[Any] | None:
    """Return the dataclass that annotates the first parameter, if one does.

    Parameters
    ----------
    function : callable
        A trial function.

    Returns
    -------
    type or None
        The dataclass.
    """
    first = next(iter(inspect.signature(function).parameters), None)
    try:
        hint = typing.get_type_hints(function).get(first or "")
    except NameError:
        hint = None
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


@functools.cache
def _code_version(reference: str) -> str:
    """Digest the code that a trial function can reach."""
    function = inspect.unwrap(load(reference))
    place, _, attribute = reference.rpartition(":")
    source = inspect.getsourcefile(function)
    if source is None:
        raise SweepError(f"trial {reference!r} has no source; set code_version.")
    start = Path(source).resolve()
    module = "" if place.endswith(".py") else function.__module__
    root = _root(start, module)
    tree = _without_docstrings(start)
    reached = list(_reachable(tree, getattr(function, "__name__", attribute)))
    digests = {"": "".join(sorted(ast.dump(node) for node in reached))}
    waiting = list(_imports(reached, start, root))
    while waiting:
        path = waiting.pop()
        key = path.relative_to(root).as_posix()
        if key not in digests:
            tree = _without_docstrings(path)
            digests[key] = ast.dump(tree)
            waiting += _imports(tree.body, path, root)
    content = "\n".join([__version__, *(f"{key}\n{digests[key]}" for key in sorted(digests))])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _root(path: Path, module: str) -> Path:
    """Return the folder from which a module is imported, which is a file's own folder."""
    if not module or module.startswith("flattest_trial_"):
        return path.parent
    steps = module.count(".") + (path.name == "__init__.py")
    return path.parents[steps]


def _without_docstrings(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _reachable(tree: ast.Module, name: str) -> Iterator[ast.stmt]:
    """Yield the statements of a module that a name depends on; each once.

    What is neither a definition nor an import nor an assignment is run for its effects, and
    always counts.
    """
    defining: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for bound in _bound_names(statement) or [""]:
            defining.setdefault(bound, []).append(statement)
    names, seen = [name, ""], set()
    while names:
        for statement in defining.get(names.pop(), []):
            if id(statement) not in seen:
                seen.add(id(statement))
                yield statement
                names += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]


def _bound_names(statement: ast.stmt) -> list[str]:
    """List the names that a statement defines or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    else:
        return []
    # The names in "a, b.c[d] = e": a and b, and d, which does no harm.
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _imports(statements: list[ast.stmt], path: Path, root: Path) -> Iterator[Path]:
    """Yield the files below the root that the statements import by name."""
    package = list(path.relative_to(root).parent.parts)
    top = package[0] if package else None
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            targets = [base, *([*base, alias.name] for alias in node.names)]
        else:
            continue
        for target in targets:
            if not target or (top is not None and target[0] != top):
                continue
            folder = root.joinpath(*target)
            for candidate in (folder.with_suffix(".py"), folder / "__init__.py"):
                if candidate.is_file():
                    yield candidate
