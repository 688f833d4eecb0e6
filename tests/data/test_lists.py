"""Lists as spreadsheets, scripts and other toolkits write them: read by one rule, or refused where they break it."""

from pathlib import Path

import pytest
from PIL import Image

from maekit.data.sources import open_source
from maekit.errors import DataError

NUMBERS = [0, 1, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images whose names hold a blank, one a comma too, one in a subfolder."""
    for name in ("img 0.png", "b, 1.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    return tmp_path


def opened(folder: Path, text: str | bytes, name: str = "list.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    source = open_source(str(folder / name))
    names = [str(Path(source.path(index)).relative_to(folder)) for index in range(len(source))]
    assert all(source.read(index) for index in range(len(source)))
    return source, names, [source.label(index) for index in range(len(source))]


FORMS = {
    "comma": "img 0.png,0\nb, 1.png,1\nsub/c.png,0\n",
    "comma and blank": "img 0.png, 0\nb, 1.png, 1\nsub/c.png, 0",
    "blank": "img 0.png 0\nb, 1.png 1\nsub/c.png 0\n",
    "tab": "img 0.png\t0\nb, 1.png\t1\nsub/c.png\t0\n",
    "semicolon": "img 0.png;0\nb, 1.png;1\nsub/c.png;0\n",
    "quotes": '"img 0.png",0\n"b, 1.png",1\n"sub/c.png",0\n',
    "header": "image,label\nimg 0.png,0\nb, 1.png,1\nsub/c.png,0\n",
    "header, other names": "filename;class\nimg 0.png;0\nb, 1.png;1\nsub/c.png;0\n",
    "header, other order": "label\tfile_name\n0\timg 0.png\n1\tb, 1.png\n0\tsub/c.png\n",
    "byte-order mark, CR LF": "\ufeffpath,label\r\nimg 0.png,0\r\n\r\nb, 1.png,1\r\nsub/c.png,0\r\n",
    "CR": "path,label\rimg 0.png,0\rb, 1.png,1\rsub/c.png,0",
    "comments": "# mine\nimg 0.png,0\n# the next\nb, 1.png,1\nsub/c.png,0\n",
    "numbers with a point": "img 0.png,0.0\nb, 1.png,1.0\nsub/c.png,0.\n",
    "backslashes": "img 0.png,0\nb, 1.png,1\nsub\\c.png,0\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_whoever_wrote_it(form: str, folder: Path) -> None:
    source, names, labels = opened(folder, FORMS[form])
    assert names == ["img 0.png", "b, 1.png", "sub/c.png"]
    assert labels == NUMBERS
    assert source.classes == ("0", "1")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nimg 0.png,cat\nb, 1.png,dog\nsub/c.png,cat\n",
        "img 0.png,cat\nb, 1.png,dog\nsub/c.png,cat\n",
        "img 0.png cat\nb, 1.png dog\nsub/c.png cat\n",
        '"img 0.png";"cat"\n"b, 1.png";"dog"\n"sub/c.png";"cat"\n',
    ],
)
def test_names_are_labels(text: str, folder: Path) -> None:
    source, _, labels = opened(folder, text)
    assert source.classes == ("cat", "dog")
    assert labels == NUMBERS


def test_a_name_may_hold_blanks_and_an_image_may_have_none(folder: Path) -> None:
    source, _, labels = opened(folder, "img 0.png great dane\nb, 1.png\nsub/c.png tabby cat\n")
    assert source.classes == ("great dane", "tabby cat")
    assert labels == [0, None, 1]


def test_columns_that_are_left_out_are_said(folder: Path) -> None:
    source, _, labels = opened(folder, ",path,label,width\n0,img 0.png,0,40\n1,sub/c.png,1,40\n")
    assert labels == [0, 1]
    assert source.passed_over.words().endswith("left out: the nameless one, width")
    source, _, labels = opened(folder, "img 0.png,0,40,train\nsub/c.png,1,40,train\n")
    assert labels == [0, 1]
    assert source.passed_over.words().endswith("left out: 2 after the label")
    source, _, labels = opened(folder, "img 0.png 0 3\nsub/c.png 1 7\n")
    assert labels == [0, 1]
    assert source.passed_over.words().endswith("left out: 1 after the label")


def test_labels_that_begin_at_one_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(folder, "img 0.png,1\nsub/c.png,2\n")
    assert "labels begin at 1" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("img 0.png,0\nsub/c.png,cat\n", "line 2: label 'cat' is a word, where '0' in line 1 is a number"),
        ("path,label,width\nimg 0.png,0,40\nb, 1.png,1,40\n", "line 3: has 4 cells where the first line names 3"),
        ("path,label\n,0\nimg 0.png,0\n", "line 2: its path is empty"),
        ("0,img 0.png,1\n1,sub/c.png,0\n", "line 1: '0,img 0.png' is not there"),
        ("path,label,split\nimg 0.png,0,train\nsub/c.png,1,val\n", "list.csv@train or "),
    ],
)
def test_the_line_that_breaks_the_rule_is_named(text: str, said: str, folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        opened(folder, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tilde_that_is_nobodys_home_and_a_huge_cell(tmp_path):
    for name in ("~$draft.png", "a.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text("~$draft.png\n~nobodyhere/x.png\na.png\n")
    source = open_source(str(tmp_path / "list.csv"))
    assert source.path(0) == str(tmp_path / "~$draft.png")
    (tmp_path / "thumbs.csv").write_text(f"path,label,thumb\na.png,3,{'0' * 200_000}\n")
    assert open_source(str(tmp_path / "thumbs.csv")).label(0) == 3
    with pytest.raises(DataError, match="no such file or folder"):
        open_source("~nobodyhere/x")
