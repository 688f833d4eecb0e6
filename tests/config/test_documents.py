"""Commands and options that the documents name are those that there are."""

import re
from pathlib import Path

import pytest

from maekit.presets.verbs import ALSO, options_by_verb

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = {"from-flyegle.md", "errors.md", "log.md"}  # other programs' options, mistakes, and what once was
STANDS_FOR = {
    "PRESET": "vit-tiny", "SOURCE": "photos", "IMAGE...": "a.jpg", "FORMAT": "timm", "PATH": "p", "PICTURE": "p.png",
    "FILE": "f.npz", "WEIGHTS": "w", "W": "w", "RUN": "runs/r",
}  # fmt: skip
OF_ALL = {"--help", "--help-all", "--json", "--debug", "--version"}
OTHER_TOOLS = re.compile(r"\b(python|pip|pytest|torchrun|sbatch|benchmarks)\b")
"""In lines that name one of these, options may be theirs."""


def _commands():
    for document in DOCUMENTS:
        if document.name in OTHERS:
            continue
        text = document.read_text(encoding="utf-8")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in re.findall(
                r"^(?:\$ )?(?:\w+=\S+ )*(?:torchrun .*-m )?maekit(?:\.cli)? (.*)$", block, re.MULTILINE
            ):
                yield document.name, line.partition(" #")[0].strip()
        for line in re.findall(r"^\| `maekit (.*?)` \|", text, re.MULTILINE):
            yield document.name, line


@pytest.mark.parametrize(("document", "line"), sorted(set(_commands())))
def test_commands_in_documents_are_taken(typed, document, line):
    words = " ".join(STANDS_FOR.get(word, word) for word in line.split())
    answer = typed(words)
    assert answer.read, f"{document}: maekit {line}\n{answer.line}"


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path.name not in OTHERS], ids=lambda path: path.name
)
def test_options_in_documents_are_those_of_some_verb(document):
    known = {
        name
        for options in options_by_verb().values()
        for option in options
        for name in (*option.names, *option.negative)
    }
    known |= {name for further in ALSO.values() for name in further}
    lines = [line for line in document.read_text(encoding="utf-8").splitlines() if not OTHER_TOOLS.search(line)]
    named = re.findall(r"`(--[a-z][\w.-]*\w)", "\n".join(lines))
    assert set(named) - known - OF_ALL == set()
