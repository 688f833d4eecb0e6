"""A report as one HTML file that needs nothing else: no script, no request, readable on a phone and in the dark."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from maekit import storage
from maekit.report import figures
from maekit.sections import Part, Section, html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What browsers may load for a page: nothing but what is in it."""


def write(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; the file is either complete or as it was before. Raises StorageError."""
    storage.write_text(path, render(title, sections))


def render(title: str, sections: Sequence[Section], *, refresh: int | None = None) -> str:
    """The page as text. All words are escaped; only a Figure's svg is trusted.

    refresh: seconds after which a browser asks for it anew.
    """
    body = "\n".join(map(html, sections))
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
{again}<title>{escape(title)}</title>
<style>{_CSS}{figures.HOVER}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def replaced(written: str, part: Part) -> str:
    """A page as it was written, with a part of it anew; as it is where it has no such part."""
    before, opening, rest = written.partition(f'<section id="{part.name}">')
    _, closing, after = rest.partition("</section>")
    return before + html(part) + after if opening and closing else written


_CSS = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1a1a1a; --quiet: #5a5a5a; --rule: #dcdcdc; --panel: #f6f7f8;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e8e8e8; --quiet: #a9adb3; --rule: #3a3e44; --panel: #1f2226; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 47rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h1 + h2 { margin-top: 0; padding-top: 0; border: 0; }
figure { margin: 1.25rem 0 2rem; }
figcaption { margin-top: .5rem; color: var(--quiet); font-size: .875rem; }
.paper { display: block; background: #fff; border-radius: 6px; max-width: 100%; height: auto; }
div.paper { padding: .5rem; }
div.paper { overflow-x: auto; }
.paper svg { display: block; width: 100%; height: auto; }
.paper svg text { font-family: inherit !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--quiet); font-size: .875rem; font-weight: 600; }
tbody th { font-weight: 400; }
dl {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem 1.5rem;
  margin: 1.25rem 0; padding: 1rem 1.25rem; background: var(--panel); border-radius: 6px;
}
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.strips { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .35rem .75rem; align-items: center; }
.strips span { color: var(--quiet); font-size: .8rem; font-variant-numeric: tabular-nums; max-width: 7rem; }
.strips img { display: block; width: 100%; height: auto; }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .75rem; }
.thumbnails img { display: block; max-width: 100%; height: auto; }
.thumbnails span { display: block; color: var(--quiet); font-size: .72rem; line-height: 1.35; overflow-wrap: anywhere; }
@media (max-width: 30rem) {
  main { padding: 1.25rem .9rem 3rem; }
  dl { grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); padding: .75rem; gap: .6rem .75rem; }
  .paper svg { min-width: 27rem; }
  .strips { grid-template-columns: minmax(0, 1fr); gap: .1rem; }
  .strips img { margin-bottom: .5rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --quiet: #444; --rule: #ccc; --panel: #fff; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  dl { border: 1px solid var(--rule); }
  .paper, figure, dl, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
