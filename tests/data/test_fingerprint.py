"""What a source's fingerprint notices, and what it takes to know it."""

from pathlib import Path

import pytest
from trees import tree

from maekit.data.sources import folder as folders
from maekit.data.sources import open_source
from maekit.data.sources.source import full_fingerprint

NAMES = ("a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tree(tmp_path / "files", *NAMES)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files whose size was looked at, where fingerprints take no more than two."""
    looked: list[str] = []
    size = folders.file_size

    def spy(path: Path) -> int:
        looked.append(path.name)
        return size(path)

    monkeypatch.setattr(folders, "_SIZED", 2)
    monkeypatch.setattr(folders, "file_size", spy)
    return looked


def test_names_labels_and_number_are_always_noticed(files: Path, looks: list[str]) -> None:
    found = {open_source(str(files)).fingerprint()}
    (files / "a" / "1.png").rename(files / "a" / "one.png")
    found.add(open_source(str(files)).fingerprint())
    (files / "a" / "one.png").rename(files / "b" / "one.png")
    found.add(open_source(str(files)).fingerprint())
    (files / "b" / "one.png").unlink()
    found.add(open_source(str(files)).fingerprint())
    assert len(found) == 4
    assert len(looks) == 8


def test_a_list_in_another_form_is_the_same(files: Path) -> None:
    (files / "list.csv").write_text("".join(f"{name},{name[0]}\n" for name in NAMES))
    (files / "table.tsv").write_text("# mine\nlabel\tpath\r\n" + "".join(f"{name[0]}\t{name}\n" for name in NAMES))
    prints = {open_source(str(files / name)).fingerprint() for name in ("list.csv", "table.tsv")}
    assert prints == {open_source(str(files)).fingerprint()}


def test_the_size_of_every_file_is_noticed_only_in_full(files: Path, looks: list[str]) -> None:
    source = open_source(str(files))
    before, full = source.fingerprint(), full_fingerprint(source)
    assert looks[:2] == ["0.png", "3.png"]
    assert {Path(name).name for name in NAMES} == set(looks[2:])
    with (files / "a" / "1.png").open("ab") as file:
        file.write(b"more")
    assert source.fingerprint() == before
    assert full_fingerprint(source) != full
    with (files / "b" / "3.png").open("ab") as file:
        file.write(b"more")
    assert source.fingerprint() != before
