"""Two processes, where one has nothing to do, or takes its time."""

import json
import time
import warnings

import pytest
import torch
from torch import nn

import tiny
from maekit import strict_json
from maekit.engine.distributed import join, parallel
from maekit.errors import DataError, OthersError
from processes import in_two_processes, maekit

SHORT = ("--steps", "2", "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard")


@pytest.fixture(scope="module")
def one_image(photos, tmp_path_factory):
    """A folder with one picture, and a list of it that gives its class."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "rough").mkdir()
    picture = sorted(photos.glob("rough/*"))[0]
    (folder / "rough" / picture.name).write_bytes(picture.read_bytes())
    (folder / "list.csv").write_text(f"path,label\nrough/{picture.name},rough\n")
    return folder


def pretrained(out, photos, *more):
    return maekit("pretrain", "vit-tiny", *tiny.SIZES, *SHORT, "--data", photos, "--out", out, *more)


def strictly(said):
    """The answer of a process, in which JSON's own words alone are read."""
    assert said.value == 0, said.err

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(said.out.splitlines()[-1], parse_constant=refuse)


def test_pretraining_with_fewer_validation_images_than_processes(photos, one_image, tmp_path):
    first, second = in_two_processes(pretrained, tmp_path / "run", photos, "--val", one_image / "rough", "--json")
    assert second.value == 0, second.err
    assert strictly(first)["val_loss"] > 0


def test_fine_tuning_and_probing_with_fewer_validation_images_than_processes(photos, one_image, tmp_path):
    assert pretrained(tmp_path / "run", photos) == 0
    tuning = (
        "finetune", "vit-tiny", "--weights", tmp_path / "run", "--data", photos, "--val", one_image / "list.csv",
        *SHORT, "--out", tmp_path / "tuned", "--json",
    )  # fmt: skip
    first, second = in_two_processes(maekit, *tuning)
    assert second.value == 0, second.err
    assert strictly(first)["val_top1"] in (0, 1)
    probing = (
        "probe", "--weights", tmp_path / "run", "--data", photos, "--val", one_image / "list.csv", "--kinds", "knn",
        "linear", "--json",
    )  # fmt: skip
    first, second = in_two_processes(maekit, *probing)
    assert second.value == 0, second.err
    assert strictly(first)["knn"]["top1"] in (0, 1)


def test_validation_images_that_none_can_read_are_one_line(photos, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "torn.png").write_bytes(b"no picture")
    for said in in_two_processes(pretrained, tmp_path / "run", photos, "--val", tmp_path / "val"):
        assert said.value == 1, said.err
        assert "Traceback" not in said.err


def slowly(seconds, slow_rank, error=None):
    """Work that takes one process longer than the hang timeout of the two."""
    with join("cpu", timeout=2) as world:

        def work():
            if world.rank == slow_rank:
                time.sleep(seconds)
                if error is not None:
                    raise error
            return world.rank

        return world.patiently(work), int(world.sum(torch.ones(1)))


@pytest.mark.parametrize("slow_rank", [0, 1])
def test_work_may_take_longer_than_the_hang_timeout(slow_rank):
    first, second = in_two_processes(slowly, 4, slow_rank)
    assert (first.value, second.value) == ((0, 2), (1, 2)), first.err + second.err


def test_an_error_in_one_process_ends_both():
    first, second = in_two_processes(slowly, 0.1, 1, DataError("the second's trouble"))
    assert "the second's trouble" in second.err
    assert OthersError.__name__ in first.err
    assert "another process of this job failed" in first.err


def warned():
    with join("cpu", timeout=20), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parallel(nn.Linear(1, 1))
    return [str(warning.message) for warning in caught]


def test_training_together_warns_of_nothing():
    for said in in_two_processes(warned):
        assert said.value == [], said.err


def test_json_has_no_word_for_what_is_not_finite():
    values = {"loss": float("inf"), "rows": [float("nan"), {"deep": (-float("inf"), 1.5, True, None)}]}
    assert json.loads(strict_json.dumps(values)) == {"loss": None, "rows": [None, {"deep": [None, 1.5, True, None]}]}
