"""Every block of docs/python.md, as it stands but shorter, in the order of the page; and the README's."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python")[2]
    names = {}
    for text in (page, readme):  # which names what the page made
        folder = tmp_path / str(len(text))
        folder.mkdir()
        monkeypatch.chdir(folder)
        for block in python_blocks(text):
            exec(compile(re.sub(r"steps=\d+", "steps=2", block), "a document", "exec"), names)
    assert names["painted"].shape == names["picture"].shape == (60, 1, 8, 8)
    assert names["run"].complete
