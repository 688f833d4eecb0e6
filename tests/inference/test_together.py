"""Several processes share a pass: each image counts once, and rows are in the source's order."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from processes import in_processes, maekit

SIZES = ("--model.width", 32, "--model.depth", 1, "--model.heads", 2, "--model.patch-size", 8, "--image-size", 32)
TRAINING = ("--steps", 1, "--batch-size", 4, "--lr", "1e-3", "--workers", 0, "--run.no-tensorboard", "--device", "cpu")


@pytest.fixture(scope="module")
def torn(photos, tmp_path_factory):
    """Thirteen files, the third of which is no picture: they divide among no number of processes."""
    folder = tmp_path_factory.mktemp("torn")
    for path in photos.rglob("*.*"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    (folder / "rough" / "04.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def tuned(maekit_here, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    done = maekit_here("scratch", "vit-tiny", *SIZES, *TRAINING, "--data", photos, "--val", photos, "--out", out,
                       "--mix.mixup", 0, "--mix.cutmix", 0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def all_well(said):
    assert not any(one.value for one in said), "".join(one.err for one in said)
    assert not any(one.out for one in said[1:]), "only the first speaks"
    return json.loads(said[0].out.splitlines()[-1])


@pytest.mark.parametrize(("count", "suffix", "tokens"), [(2, "npz", "pooled"), (3, "parquet", "patches")])
def test_features_are_those_of_one_process_row_by_row(tuned, torn, maekit_here, tmp_path, count, suffix, tokens):
    words = [
        "embed",
        "--weights",
        tuned,
        "--data",
        torn,
        "--device",
        "cpu",
        "--batch-size",
        2,
        "--tokens",
        tokens,
        "--json",
    ]
    one, many = tmp_path / f"one.{suffix}", tmp_path / f"many.{suffix}"
    alone = maekit_here(*words, "--out", one)
    assert alone.returncode == 0, alone.stderr
    answer = all_well(in_processes(count, maekit, *words, "--out", many))
    assert answer["images"] == 12
    assert answer == {**json.loads(alone.stdout.splitlines()[-1]), "out": str(many)}
    if suffix == "npz":
        ours, theirs = np.load(one), np.load(many)
        for name in ("path", "label"):
            assert (ours[name] == theirs[name]).all()
        np.testing.assert_allclose(theirs["vector"], ours["vector"], rtol=1e-5, atol=1e-6)
    else:
        ours, theirs = pq.read_table(one), pq.read_table(many)
        assert theirs["path"] == ours["path"]
        assert theirs["label"] == ours["label"]
        np.testing.assert_allclose(theirs["vector"].to_pylist(), ours["vector"].to_pylist(), rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((one.name, many.name))


def test_a_judgement_is_that_of_one_process(tuned, torn, maekit_here, tmp_path):
    words = ["evaluate", "--weights", tuned, "--data", torn, "--device", "cpu", "--batch-size", 2, "--json"]
    alone = maekit_here(*words, "--confusion", tmp_path / "one.svg")
    assert alone.returncode == 0, alone.stderr
    ours = json.loads(alone.stdout.splitlines()[-1])
    theirs = all_well(in_processes(3, maekit, *words, "--confusion", tmp_path / "many.svg"))
    assert theirs["images"] == 12
    assert theirs.pop("loss") == pytest.approx(ours.pop("loss"), rel=1e-6)
    assert theirs == ours
    assert (tmp_path / "many.svg").read_text() == (tmp_path / "one.svg").read_text()


def test_what_runs_in_one_process_says_so(tuned, photos):
    first, second = in_processes(2, maekit, "classify", "--weights", tuned, photos)
    assert (first.value, second.value) == (2, 2)
    assert "classify: runs in one process, without torchrun" in first.err
    assert second.err == ""
