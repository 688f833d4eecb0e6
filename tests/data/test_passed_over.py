"""What a source met and did not take is counted, and said once."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_forms import write_shard
from trees import labels_by_name, names_of, png, refusal, tree

from maekit.data.sources import find_source, open_source
from maekit.data.sources.passed_over import PassedOver


def passed_over(text: object) -> PassedOver:
    return find_source(str(text)).passed_over


def test_files_that_may_be_meant_as_images_are_told_from_what_lies_beside(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/2.HEIC", "a/3.heic", "a/raw", "a/scan.0001", "b/1.png", "b/notes.txt", "README",
         "b/.hidden.png", ".git/x.png", "b/table.csv", "b/4.CR2")  # fmt: skip
    found = passed_over(tmp_path)
    assert found.images == {".heic": 2, "without suffix": 2, ".cr2": 1}
    assert found.beside == {".txt": 1, "README": 1, "hidden file": 1, "hidden folder": 1, ".csv": 1}
    assert found.words().startswith("passed over: 2 .heic, 2 without suffix, 1 .cr2; beside the images: ")


def test_a_class_folder_left_without_images_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "ant/1.heic", "ant/2.heic", "bee/", "cat/1.png", "dog/1.png", "docs/readme.md")
    source = find_source(str(tmp_path))
    assert source.classes == ("cat", "dog")
    assert source.passed_over.notes == (
        "class folder ant has no image that can be read: 2 .heic",
        "class folder bee has no image that can be read: it is empty",
    )


def test_a_folder_of_other_files_alone_says_which(tmp_path: Path) -> None:
    tree(tmp_path, "1.heic", "2.heic", "notes.txt")
    assert "holds no image; passed over: 2 .heic; beside the images: 1 .txt; maekit reads no .heic" in refusal(tmp_path)


def test_it_is_said_once_and_answered(tmp_path: Path, maekit_here, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "1.png", "2.heic")
    with caplog.at_level(logging.INFO, logger="maekit"):
        open_source(str(tmp_path))
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}: passed over: 1 .heic"]
    done = maekit_here("data", tmp_path, "--workers", "0", "--json")
    assert json.loads(done.stdout)["passed_over"] == {"images": {".heic": 1}, "beside": {}, "notes": []}
    assert "passed over: 1 .heic" in done.stderr
    assert (done.stdout + done.stderr).count("passed over:") == 1


def test_nothing_is_said_where_all_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "1.png", "2.png")
    with caplog.at_level(logging.DEBUG, logger="maekit"):
        assert not open_source(str(tmp_path)).passed_over.words()
    assert not caplog.records


def test_every_image_unreadable_fails_after_the_report(tmp_path: Path, maekit_here) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    done = maekit_here("data", tmp_path, "--workers", "0", "--json")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["unreadable"]) == 1
    assert "none of its 1 images can be read" in done.stderr.splitlines()[-1]
    tree(tmp_path, "whole.png")
    assert maekit_here("data", tmp_path, "--workers", "0").returncode == 0


@pytest.mark.parametrize(
    "names",
    [
        ("@eaDir/1.png", "#recycle/2.png", "__MACOSX/3.png", "lost+found/4.png", "$RECYCLE.BIN/5.png"),
        ("a/@eaDir/1.png@SynoPhoto/thumb.png", "b/@eaDir/2.png"),
    ],
)
def test_folders_that_systems_make_are_no_images_and_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    tree(tmp_path, "a/1.png", "b/2.png", *names)
    source = find_source(str(tmp_path))
    assert names_of(source, tmp_path) == ["a/1.png", "b/2.png"]
    assert source.classes == ("a", "b")
    assert source.passed_over.beside.total() == len(names)


class TestRunFolders:
    """Runs that lie among the images they saw."""

    WORDS = ("--model.depth", "1", "--model.width", "24", "--model.heads", "2", "--model.decoder.depth", "1",
             "--model.decoder.width", "16", "--model.decoder.heads", "2", "--image-size", "32", "--batch-size", "2",
             "--lr", "1e-3", "--workers", "0", "--device", "cpu")  # fmt: skip

    def test_a_run_among_its_images_goes_on(self, tmp_path: Path, maekit_here, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree(tmp_path, *(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3))))
        words = ("pretrain", "vit-tiny", "--data", ".", *self.WORDS, "--out", "runs/mine")
        assert maekit_here(*words, "--steps", "2", "--checkpoint-every", "1").returncode == 0
        assert list(tmp_path.rglob("reconstruction.png"))
        source = find_source(".")
        assert (len(source), source.classes) == (6, ("cat", "dog"))
        assert source.passed_over.beside == {"run folder": 1}
        done = maekit_here(*words, "--steps", "2", "--checkpoint-every", "1", "--resume")
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "log.txt", "model.safetensors"])
    def test_a_folder_of_images_with_a_file_of_such_a_name_is_none(self, tmp_path: Path, name: str) -> None:
        tree(tmp_path, "a/1.png", "b/1.png", f"b/{name}")
        (tmp_path / "b" / name).write_text('{"classes": 3}\n')
        assert len(find_source(str(tmp_path))) == 2


class TestKinds:
    """Images, parquet and tars in one folder."""

    def test_two_kinds_are_refused_with_both_named(self, tmp_path: Path) -> None:
        tree(tmp_path / "hub", "assets/teaser.png", "data/a.parquet", "README.md")
        said = refusal(tmp_path / "hub")
        assert "1 image (assets/teaser.png) and 1 .parquet file (data/a.parquet)" in said
        assert said.endswith(f"name the one that is meant: {tmp_path}/hub/assets or {tmp_path}/hub/data")
        assert len(find_source(f"{tmp_path}/hub/data")) == 1
        tree(tmp_path / "web", "preview.png", "shard-0.tar", "shard-1.tar")
        said = refusal(tmp_path / "web")
        assert f"'{tmp_path}/web/*.png' or '{tmp_path}/web/*.tar'" in said
        assert len(find_source(f"{tmp_path}/web/*.tar")) == 2
        assert len(find_source(f"{tmp_path}/web/*.png")) == 1
        tree(tmp_path / "both", "a.tar", "b.parquet")
        assert "1 .parquet file (b.parquet) and 1 .tar file (a.tar)" in refusal(tmp_path / "both")

    def test_a_table_without_images_lies_beside(self, tmp_path: Path) -> None:
        tree(tmp_path, "1.png")
        pq.write_table(pa.table({"vector": [[0.5]], "path": ["1.png"]}), tmp_path / "features.parquet")
        write_shard(tmp_path / "notes.tar", {"1.txt": b"nothing"})
        source = find_source(str(tmp_path))
        assert len(source) == 1
        assert source.passed_over.words() == "beside the images: 1 parquet file, 1 tar file"


class TestMetadata:
    """A table that says what the images beside it are."""

    def test_labels_of_a_table_go_before_folders(self, tmp_path: Path) -> None:
        tree(tmp_path, "one/1.png", "one/2.png", "two/3.png", "two/4.png")
        (tmp_path / "metadata.csv").write_text("file_name,label\none/1.png,owl\none/2.png,eel\ntwo/3.png,owl\n")
        source = find_source(str(tmp_path))
        assert labels_by_name(source, tmp_path) == {
            "one/1.png": "owl", "one/2.png": "eel", "two/3.png": "owl", "two/4.png": None
        }  # fmt: skip
        assert "1 images have no label in the metadata, such as 4.png" in source.passed_over.notes
        assert "labels are the metadata's, not the folders' (one, two)" in source.passed_over.notes

    def test_lines_of_json(self, tmp_path: Path) -> None:
        tree(tmp_path, "1.png", "2.png")
        rows = [{"file_name": "1.png", "label": 1}, {"file_name": "2.png", "label": 0}]
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert labels_by_name(find_source(str(tmp_path)), tmp_path) == {"1.png": "1", "2.png": "0"}

    def test_splits_in_a_column_are_told_apart_as_in_lists(self, tmp_path: Path) -> None:
        tree(tmp_path, "1.png", "2.png")
        (tmp_path / "metadata.csv").write_text("file_name,label,split\n1.png,0,train\n2.png,1,test\n")
        said = refusal(tmp_path)
        assert said.endswith(f"take one of them: {tmp_path}/metadata.csv@test or {tmp_path}/metadata.csv@train")
        assert len(find_source(f"{tmp_path}/metadata.csv@train")) == 1

    def test_numbers_as_spreadsheets_write_them(self, tmp_path: Path) -> None:
        tree(tmp_path, "1.png", "2.png")
        (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,10.0\n2.png,2.0\n")
        source = find_source(str(tmp_path))
        assert [source.label(index) for index in range(2)] == [10, 2]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("file_name,text\n1.png,a bird\n", "it has no column of labels"),
            ("name,label\n1.png,0\n", "it has no column file_name"),
            ("file_name,label\n7.png,0\n", "none of the images it names is there; the first is 7.png"),
        ],
    )
    def test_a_table_that_does_not_fit_is_left_out_and_said(self, tmp_path: Path, text: str, said: str) -> None:
        tree(tmp_path, "1.png")
        (tmp_path / "metadata.csv").write_text(text)
        source = find_source(str(tmp_path))
        assert source.classes is None
        assert said in " ".join(source.passed_over.notes)


def test_class_names_in_composed_and_decomposed_form_are_one(tmp_path: Path) -> None:
    tree(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "dog/3.png")
    source = find_source(str(tmp_path))
    assert source.classes == ("caf\u00e9", "dog")
    assert [source.label(index) for index in range(3)] == [0, 0, 1]
    assert sorted(source.read(index) for index in range(3)) == sorted(map(png, range(3)))
