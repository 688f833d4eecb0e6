"""The README's tour, run as it stands there: it leaves what it says, and pretraining wins."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
MARGIN = 0.12  # .28 was measured


def tour() -> list[list[str]]:
    """The words of the lines after `$` in the README's console block."""
    block = re.search(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert block is not None
    return [shlex.split(line.removeprefix("$ ")) for line in block[1].splitlines() if line.startswith("$ ")]


pytestmark = pytest.mark.timeout(900)  # a minute and a half where the cores are free


@pytest.fixture(scope="module")
def toured(maekit_here, tmp_path_factory):
    """The folder in which the tour was taken, and the accuracies of its fine-tuning and its training from scratch."""
    folder = tmp_path_factory.mktemp("tour")
    found: dict[str, list[float]] = {"finetune": [], "scratch": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for program, verb, *words in tour():
            assert program == "maekit"
            done = maekit_here(verb, *words, "--json")
            assert done.returncode == 0, f"{verb} {words}\n{done.stderr}"
            if verb in found:
                found[verb].append(json.loads(done.stdout.splitlines()[-1])["val_top1"])
    return folder, found


@pytest.mark.slow
def test_the_tour_leaves_what_it_says(toured):
    assert len(tour()) >= 6
    for words in tour():
        for option, value in itertools.pairwise(words):
            if option == "--out":
                assert (toured[0] / value).exists(), words
    judged = json.loads((toured[0] / "runs" / "digits" / "probes.jsonl").read_text())
    assert [row["kind"] for row in judged["rows"]] == ["knn"] * 4 + ["linear"]
    assert "linear" in (toured[0] / "runs" / "digits" / "report.html").read_text()


@pytest.mark.slow
def test_pretraining_beats_training_from_scratch_on_the_same_few_labels(toured):
    tuned, scratch = toured[1]["finetune"], toured[1]["scratch"]
    assert len(tuned) == len(scratch) == 1
    assert tuned[0] - scratch[0] > MARGIN, toured[1]


def test_both_starts_have_the_same_labels_and_the_same_steps():
    def budget(verb: str) -> dict[str, str]:
        words = next(words for words in tour() if words[1] == verb)
        return {option: value for option, value in itertools.pairwise(words) if option in ("--per-class", "--steps")}

    assert budget("finetune") == budget("scratch")
    assert budget("finetune").keys() == {"--per-class", "--steps"}
