"""`make docs` builds a site of all pages, which asks no other host for anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maekit

ROOT = Path(__file__).parents[1]
ASKED_FOR = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc(?:set)?="([^"]+)"|<link\b(?=[^>]*stylesheet)[^>]*\bhref="([^"]+)"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning, as of a link that leads nowhere, fails it."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_docs_is_in_its_navigation(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    assert [str(page) for page in pages if f'href="{page}"' not in first] == []


def test_no_page_asks_another_host(site):
    found = [
        asked
        for page in site.rglob("*.html")
        for pair in ASKED_FOR.findall(page.read_text(encoding="utf-8"))
        for asked in pair
        if asked
    ]
    assert any(asked.endswith(".css") for asked in found)
    assert [asked for asked in found if asked.startswith(("http:", "https:", "//"))] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*", styles) == []


def test_links_of_the_repository_lead_to_pages_of_the_site(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="sources.html"' in first
    assert 'href="docs/' not in first
    assert 'href="../benchmarks/memory-plan_' not in (site / "scaling.html").read_text(encoding="utf-8")
    assert list((site / "benchmarks").glob("memory-plan_*.html"))
    assert "hidden[axis" not in (site / "examples" / "centre_mask.html").read_text(encoding="utf-8")


def test_every_public_name_has_its_place(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    named = set(re.findall(r'id="maekit(?:\.\w+)*\.(\w+)"', pages))
    packages = {"presets"}
    assert set(maekit.__all__) - named - packages == set()


def test_options_stand_with_their_verbs(site):
    page = (site / "api" / "verbs.html").read_text(encoding="utf-8")
    assert "--mask-ratio" in page
    assert "Votes of" not in page.partition("<h2")[0]
    assert page.count("<details") == len(re.findall(r"<h2 id=", page))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_knows_it():
    done = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "mkdocs build --strict" in done.stdout
