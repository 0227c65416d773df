"""The pages for people: each is found from the README, and no link leads nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = ("docs", "benchmarks", "deploy", "services", "libs")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])

CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def read_links(page: Path) -> Iterator[tuple[Path, str]]:
    """Where the page's relative links lead: (file or folder, part of it)."""
    for link in LINK.findall(CODE.sub("", page.read_text("utf-8"))):
        if "://" not in link and not link.startswith("mailto:"):
            place, _, part = link.partition("#")
            yield (page.parent / place).resolve() if place else page, part


def read_parts(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = HEADING.findall(re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def find_linked(page: Path) -> set[Path]:
    """The pages that a page links to; a folder's is its README."""
    return {place / "README.md" if place.is_dir() else place for place, _ in read_links(page)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for place, part in read_links(page):
        assert place.exists(), f"{place} is not there"
        assert not part or part in read_parts(place), f"{place} has no #{part}"


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    linked = find_linked(README)
    linked |= {place for page in linked if page.suffix == ".md" and page.is_file() for place in find_linked(page)}
    pages = set((ROOT / "docs").rglob("*.md"))
    assert len(pages) > 30
    assert sorted(str(page.relative_to(ROOT)) for page in pages - linked) == []


def test_the_readme_itself_links_all_pages_but_those_of_decisions() -> None:
    assert set((ROOT / "docs").glob("*.md")) - find_linked(README) == set()
