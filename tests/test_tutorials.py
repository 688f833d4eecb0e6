"""The tutorials, in the order of their lines: commands as typed but shorter, files and programs as they stand."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
FIXTURES = Path(__file__).parent / "fixtures" / "parity"
SHORT = ("--steps", "3", "--batch-size", "4", "--workers", "0", "--run.no-tensorboard")
BLOCK = re.compile(r'^```(console|python)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FACEBOOK = (
    "--model.width", "48", "--model.depth", "2", "--model.heads", "3", "--model.patch-size", "8", "--image-size", "32",
    "--model.decoder.width", "32", "--model.decoder.depth", "2", "--model.decoder.heads", "4", "--device", "cpu",
)  # fmt: skip
EVA = (*tiny.SIZES[:2], "--model.depth", "1", "--model.heads", "2", "--image-size", "28", "--model.patch-size", "14")


def blocks(name: str) -> Iterator[tuple[str, str, str]]:
    """(console or python, the file's name where it has one, text) of a tutorial's blocks."""
    found = BLOCK.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8"))
    assert found
    return iter(found)


def shorter(words: list[str], small: tuple[str, ...]) -> list[str]:
    """A command's words with less to do, for a model as small as `small` says where one is made."""
    match words[0]:
        case "pretrain" if words[1] == "digits":
            return [*words, "--steps", "3"]
        case "pretrain":
            return [*tiny.without_epochs(words), *small, *SHORT]
        case "finetune" | "scratch" if words[1] == "digits":
            return [*words, *SHORT[:4]]
        case "finetune" | "scratch":
            return [*tiny.without_epochs(words), *SHORT, "--device", "cpu"]
        case "watch" | "app":
            return [*words, "--seconds", "1", "--port", "0"]
        case "suggest":
            return [*words, "--device", "cpu"]
        case _:
            return words


def take(name: str, maekit_here, small: tuple[str, ...] = tiny.SIZES, heads: tuple[str, ...] = ()) -> list[str]:
    """Do all that a tutorial says, in the folder where we are; its verbs. heads: what small files do not tell."""
    verbs, names = [], {"__name__": "tutorial"}
    for kind, file, text in blocks(name):
        if file:
            Path(file).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, f"{name}.md", "exec"), names)
        else:
            for line in text.splitlines():
                program, verb, *words = shlex.split(line.removeprefix("$ "))
                assert program == "maekit"
                files = [word for word in words if word.endswith(".pth")]
                if files and verb in ("pretrain", "finetune"):  # whose published widths tell the number of heads
                    maekit_here("convert", files[0], "--to", "maekit", "--out", "converted", *heads)
                    words, files = [word.replace(files[0], "converted") for word in words], []
                more = heads if files else ()
                done = maekit_here(*shorter([verb, *words], EVA if "examples.eva" in line else small), *more)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                verbs.append(verb)
    return verbs


@pytest.fixture
def place(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos` in it, where commands are typed."""
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_tutorial_has_its_test():
    tested = set(re.findall(r'take\("([\w-]+)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.stem for path in TUTORIALS.glob("*.md")} == tested


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_your_images_one_evening(maekit_here, capsys):
    verbs = take("one-evening", maekit_here)
    assert {"data", "suggest", "pretrain", "watch", "pack", "reconstruct", "embed", "app"} <= set(verbs)
    assert len(np.load("evening.npz")["vector"]) == 12
    nearest = capsys.readouterr().out.splitlines()
    assert nearest[0] == np.load("evening.npz")["path"][0]  # an image is most like itself
    assert len(nearest) == 5
    assert all(Path(name).exists() for name in ("data.html", "evening.png", "colours.png", "photos-256"))


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_few_labels(maekit_here, capsys):
    take("few-labels", maekit_here)
    assert re.search(r"linear, five labels a class: 0\.\d{3} ± 0\.\d{3}", capsys.readouterr().out)
    assert len(Path("runs/digits/probes.jsonl").read_text().splitlines()) >= 3
    assert Path("compare.html").exists()


@pytest.mark.slow
def test_from_mae_weights(place, maekit_here, capsys):
    for name in ("train", "val"):
        shutil.copytree(place / "photos", place / "flowers" / name)
    Image.new("RGB", (40, 32), (200, 60, 90)).save("rose.jpg")
    shutil.copy(FIXTURES / "facebook_mae_encoder_only.pth", "mae_pretrain_vit_base.pth")
    take("from-mae-weights", maekit_here, FACEBOOK, ("--heads", "3"))
    assert "tensor([[" in capsys.readouterr().out


@pytest.mark.slow
def test_parts_of_your_own(place, maekit_here):
    (place / "examples").symlink_to(ROOT / "examples")
    take("own-parts", maekit_here)
    assert Path("rows.png").exists()
    assert "mine:Rows" in Path("runs/rows/config.json").read_text()
