"""The site as far as it can be checked without building it: `make docs` checks the rest."""

import re
from pathlib import Path, PurePosixPath

import pytest

import flattest

DOCS = Path(__file__).parent.parent / "docs"
MADE = {"api", "gallery", "quoted"}  # folders that a build writes
PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in MADE
}
GUIDE = sorted(name for name in PAGES if name.startswith("guide/") and name != "guide/index")


def _target(page: str, written: str) -> str:
    """Return the path in `docs` that a page's relative path leads to."""
    parts: list[str] = []
    for part in (*PurePosixPath(page).parent.parts, *PurePosixPath(written).parts):
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _below(page: str) -> set[str]:
    """Return the pages in the tables of contents of a page."""
    tables = re.findall(r"```\{toctree\}\n(.*?)```", PAGES[page], flags=re.DOTALL)
    lines = (line for table in tables for line in table.splitlines())
    targets = {_target(page, line) for line in lines if line and not line.startswith(":")}
    return {target for target in targets if not _is_made(target)}


def _is_made(target: str) -> bool:
    """Tell pages that only a build writes; `make docs` says if a link to one leads nowhere."""
    folder, slash, _ = target.partition("/")
    return bool(slash) and folder in MADE


def _listed_names() -> list[str]:
    """Return the names that the page of the API lists, each of which gets a page of its own."""
    blocks = re.findall(r"\.\. autosummary::\n(.*?)(?=\n\.\.|\n```)", PAGES["api"], re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line and not line.startswith(":")]


def test_every_page_can_be_reached() -> None:
    reached, front = set(), {"index"}
    while front:
        reached |= front
        front = {below for page in front for below in _below(page)} - reached
    assert reached == set(PAGES)


def test_every_public_name_has_a_page() -> None:
    listed = _listed_names()
    assert len(listed) == len(set(listed))
    missing = set(flattest.__all__) - {"__version__"} - set(listed)
    assert not missing, f"list {sorted(missing)} in docs/api.md"
    gone = {name for name in listed if "." not in name} - set(flattest.__all__)
    assert not gone, f"docs/api.md lists {sorted(gone)}, which are no public names"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_inside_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", PAGES[page])
    for link in links:
        target = _target(page, link)
        assert _is_made(target) or (DOCS / target).is_file(), f"{page} links to {link}"
    for name in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", PAGES[page]):
        assert _target(page, name) in PAGES, f"{page} links to {name}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_figures_have_texts_for_those_who_do_not_see_them(page: str) -> None:
    for text, file in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", PAGES[page]):
        assert len(text.split()) >= 3, f"{page} shows {file} without saying what is in it"


@pytest.mark.parametrize("page", GUIDE)
def test_a_task_has_its_mathematics_and_an_example_that_runs(page: str) -> None:
    assert "\n## The mathematics\n" in PAGES[page]
    assert "\n>>> " in PAGES[page]
