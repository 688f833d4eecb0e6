"""Many lines of a list at once: as if each had been read by itself, and no more memory or time than that is for."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maekit.data.shared import memory
from maekit.data.sources import list_columns
from maekit.data.sources.list_columns import read_columns
from maekit.data.sources.list_lines import header_of, read_line, said
from maekit.errors import DataError

PIECES = (
    "a", "b/c", "img 0", "é", "猫", "\u3000", "\xa0", "\udc85", "_", "-7", "0", "12", "3.0", "cat", "great dane", "~",
    "#", ".", ".png", ".JPG", ".jpeg", ".np", ".tıff", "\x0epng", ",", ", ", ";", "\t", " ", "  ", '"', '""', "\\",
    "\v", "train", "val",
)  # fmt: skip
ENDS = ("\n", "\n", "\n\n", "\r\n", "\r")
HEADERS = (
    "",
    "",
    "path\n",
    "path,label\n",
    "label;file\n",
    "path\tlabel\tsplit\n",
    "id,image,class,split\r\n",
    "path label\n",
)

plain = st.tuples(
    st.sampled_from(("a/b", "img 0", "é", "x,y")),
    st.sampled_from((".png", ".JPG", ".jpeg", "")),
    st.sampled_from(",;\t "),
    st.sampled_from(("0", "17", "3.0", "4.", "v.png", "v.1p", "cat", "", "Ärger", "0,train", "a,0,1")),
).map("".join)
wild = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
lists = st.tuples(
    st.sampled_from(("", "\ufeff")),
    st.sampled_from(HEADERS),
    st.lists(st.tuples(plain | wild, st.sampled_from(ENDS)).map("".join), max_size=8).map("".join),
    plain | wild,
).map("".join)


def one_by_one(content: str):
    """The images of a list and what is left out, a line at a time."""
    lines = [
        (number, line)
        for number, raw in enumerate(re.split(r"\r\n|\r|\n", content), 1)
        if (line := said(raw)) is not None
    ]
    header = header_of(lines[0][1]) if lines else None
    return [read_line("list", header, number, line) for number, line in lines[header is not None :]], header


def at_once(content: bytes):
    within = memory(len(content) + 1)
    within.write(content)
    return read_columns("list", within, len(content))


@pytest.mark.parametrize(
    ("content", "images"),
    [
        ("some/b.png,0\nc d.JPG\t1\n\r\ne.jpeg;2\rf.tif 3.0\ng,h.webp\n", 5),
        ("path,label\nsome/b.png,0\nc.png,cat\n", 2),
        ("id\tclass\tpath\tsplit\n1\tcat\tany name, of mine\ttrain\n2\t\tb.png\tval\n", 2),
        ("path\nany name, of mine\nb.png\n", 2),
    ],
)
def test_usual_lines_are_never_read_one_by_one(content, images, monkeypatch):
    monkeypatch.setattr(list_columns, "read_line", None)
    assert len(at_once(content.encode()).names) == images


@pytest.mark.parametrize("block", [1, 24, 2**22])
def test_lines_at_once_say_what_each_says_by_itself(block, monkeypatch):
    monkeypatch.setattr(list_columns, "_BLOCK", block)

    @settings(max_examples=400, deadline=None)
    @given(lists)
    @example("a.png,0\n" * 3 + "b.png,dog")
    @example("path,label\na.png,0\n\r\nb.png, 1\n")
    def check(content: str) -> None:
        raw = content.encode("utf-8", "surrogateescape")
        lines, header, refused = [], None, ""
        try:
            lines, header = one_by_one(raw.decode("utf-8-sig", "surrogateescape"))
        except DataError as error:
            refused = str(error)
        if refused:
            with pytest.raises(DataError, match=f"^{re.escape(refused)}$"):
                at_once(raw)
            return
        found = at_once(raw)
        assert found.header == header
        assert list(found.names) == [line.path for line in lines]
        assert found.lines.tolist() == [line.number for line in lines]
        words = list(found.labels.numbers)
        assert [words[code] for code in found.labels.codes] == [line.label for line in lines]
        words = list(found.splits.numbers)
        splits = [line.split for line in lines] if header and header.split is not None else []
        assert [words[code] for code in found.splits.codes] == splits
        assert found.further == max((line.further for line in lines), default=0)

    check()
