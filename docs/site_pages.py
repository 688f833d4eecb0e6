"""For `make docs`: pages of the site that stand elsewhere in the repository, links between both, and tables of options.

The README is the first page; the changelog, results of benchmarks and examples are pages too. A link to any other file
of the repository becomes its name, as the site holds no code but what it shows.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from maekit.config.help import help_of
from maekit.config.options import Option
from maekit.presets.verbs import options_by_verb

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`(?!\]))"
    r"|\[(?P<words>[^\]]*)\]\((?!https?:|#)(?P<to>[^)#\s]+)(?P<at>#[^)]*)?\)",
    re.DOTALL | re.MULTILINE,
)
_HTML_LINK = re.compile(r'((?:src|srcset)=")(?!https?:|data:)([^"]+)"')
_ABOUT_VERBS = """\
Each is `maekit NAME` on the command line and `maekit.NAME(...)` in Python, which takes the same options as keywords;
those of a group are given to trainings as `options={"model.depth": 6}`. What SOURCE and W are, and what is raised:
[from Python](../python.md).
"""


def _elsewhere() -> dict[str, tuple[str, str]]:
    """By the file's place in the repository: the page's place in the site, and its text."""
    found = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
    pages = {path: (place, (ROOT / path).read_text(encoding="utf-8")) for path, place in found.items()}
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    for path in results:
        pages[f"benchmarks/results/{path.name}"] = f"benchmarks/{path.name}", path.read_text(encoding="utf-8")
    listed = "\n".join(f"- [{path.stem.replace('_', ', ')}]({path.name})" for path in reversed(results))
    pages["benchmarks/results"] = "benchmarks/index.md", f"# Results of benchmarks, as they were written\n\n{listed}\n"
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        pages[f"examples/{path.name}"] = f"examples/{path.stem}.md", text
    listed = "\n".join(f"- [{path.name}]({path.stem}.md)" for path in sorted((ROOT / "examples").glob("*.py")))
    pages["examples"] = "examples/index.md", f"# Examples\n\n{listed}\n"
    return pages


def _verbs() -> str:
    """A page of all verbs: what each does, its example, and its options, as `--help-all` has them."""
    lines = ["# Verbs", "", _ABOUT_VERBS]
    for verb, options in options_by_verb().items():
        lines += [
            "",
            f"::: maekit.verbs.{verb}",
            "    options: {show_signature: false, separate_signature: false}",
            "",
        ]
        lines += [f'??? "All {len(options)} options of {verb}"', ""]
        lines += ["    | option | default | |", "    |---|---|---|", *(f"    {_row(option)}" for option in options)]
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    default = "" if option.required else str(option.default)
    words = help_of(option).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return f"| `{option.name}` | {f'`{default}`' if default else 'required' if option.required else ''} | {words} |"


_PAGES = _elsewhere()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for place, text in _PAGES.values():
        files.append(File.generated(config, place, content=text))
    files.append(File.generated(config, "api/verbs.md", content=_verbs()))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Links as they are right in the repository become right in the site."""
    here = next((path for path, (place, _) in _PAGES.items() if place == page.file.src_uri), None)
    standing = posixpath.dirname(here if here is not None else f"docs/{page.file.src_uri}")
    to = posixpath.dirname(page.file.src_uri)

    def place(link: str) -> str | None:
        """Where the site has what a link of the repository means, as seen from this page; None: it has it not."""
        meant = posixpath.normpath(posixpath.join(standing, link))
        if here is not None and page.file.src_uri.endswith("/index.md") and not (ROOT / meant).exists():
            return link  # a list made above
        at = _PAGES[meant][0] if meant in _PAGES else meant.removeprefix("docs/") if meant.startswith("docs/") else None
        return None if at is None else posixpath.relpath(at, to or ".")

    def link(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        at = place(found["to"])
        return found["words"] if at is None else f"[{found['words']}]({at}{found['at'] or ''})"

    def source(found: re.Match[str]) -> str:
        return f'{found[1]}{place(found[2])}"'

    return _HTML_LINK.sub(source, _LINK.sub(link, markdown))
