"""What is wrong with options alone is said before torch, timm or torchvision is imported."""

import json
import re
import subprocess
import sys

import pytest

WRONG = {
    "demo": ["demo --out", "demo --seeds 0", "demo --frobnicate 3"],
    "data": ["data", "data photos --channels 0", "data photos --picture p.txt", "data photos --gpus 2"],
    "suggest": ["suggest", "suggest photos --hours 0", "suggest photos --device gpu", "suggest photos --epochs 3"],
    "pack": [
        "pack",
        "pack photos",
        "pack photos --out o --short-side 0",
        "pack photos --out o --quality 101",
        "pack photos --out o --to zip",
    ],
    "plan": [
        "plan vit-tiny",
        "plan vit-tiny --images 100000 --gpus 0",
        "plan vit-tiny --images 100000 --out r",
        "plan vit-tiny photos --images 100000",
        "plan vit-tiny --images 100000 --batch-size 100 --gpus 3",
    ],
    "pretrain": [
        "pretrain",
        "pretrain vit-tinny --data photos",
        "pretrain vit-tiny",
        "pretrain vit-tiny photos --mask-ratio 1.5",
        "pretrain vit-tiny photos --precision fp8",
        "pretrain vit-tiny photos --device gpu",
        "pretrain vit-tiny photos --steps 0",
        "pretrain vit-tiny photos --batch-size 8 --micro-batch-size 3",
        "pretrain vit-tiny photos --optimizer.base-lr None",
        "pretrain vit-tiny photos --normalise given --mean 0.5 0.5 0.5",
        "pretrain vit-tiny photos --normalise given --mean 0.5 --std 0.5",
        "pretrain vit-tiny photos --normalise given --mean 0.5 0.5 0.5 --std 0 0.5 0.5",
        "pretrain vit-tiny photos --model.channels 12",
        "pretrain vit-tiny photos --image-size 100",
        "pretrain vit-tiny photos --model.width 96 --model.heads 5",
        "pretrain vit-tiny photos --model.decoder.heads 5",
        "pretrain vit-tiny photos --model.encoder timm/vit_base_patch16_224.mae",
        "pretrain vit-tiny photos --gpus 2",
    ],
    "probe": ["probe photos --val photos", "probe photos --weights w --val photos --kinds nn"],
    "finetune": [
        "finetune vit-tiny photos --val photos",
        "finetune vit-tiny photos --weights w",
        "finetune vit-base photos --weights w --val photos --batch-size 3",
        "finetune vit-tiny photos --weights w --val photos --channels 1",
    ],
    "scratch": [
        "scratch vit-tiny photos --val photos --weights w",
        "scratch vit-tiny photos --val photos --crop_size 64",
        "scratch vit-base photos --val photos --model.channels 1",
    ],
    "watch": ["watch", "watch r --port 70000", "watch r --seconds 0"],
    "compare": ["compare", "compare r s"],
    "card": ["card", "card r --licence mit"],
    "evaluate": ["evaluate photos", "evaluate photos --weights w --confusion c.png"],
    "classify": ["classify --weights w", "classify a.jpg --weights w --top 0"],
    "reconstruct": [
        "reconstruct a.jpg --weights w",
        "reconstruct a.jpg --weights w --out o.txt",
        "reconstruct a.jpg --weights w --out o.png --mask m.png --mask-ratio 0.5",
    ],
    "embed": ["embed photos --weights w", "embed photos --weights w --out f.csv"],
    "app": ["app", "app w --port 70000", "app w --gallery-images 5", "app w v --gallery photos --seconds 0"],
    "inspect": ["inspect", "inspect w --config vit-tinny", "inspect w --encoder vit_base_patch16_224.mae"],
    "convert": [
        "convert w --out o",
        "convert w --to timmm --out o",
        "convert w --to onnx --out o.pt",
        "convert w --to timm --out o --push somebody/mine",
        "convert w --to timm --out o --resample-positions",
    ],
}
SCRIPT = """
import contextlib, io, json, shlex, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm"):
            raise RuntimeError(name + " is imported")

sys.meta_path.insert(0, Blocked())
from maekit import cli

answers = []
for command in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main(shlex.split(command))
        except RuntimeError as error:
            code = str(error)
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    commands = [command for listed in WRONG.values() for command in listed]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(commands), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", [command for listed in WRONG.values() for command in listed])
def test_wrong_options_are_named_without_torch(answers, command):
    code, said = answers[command]
    assert code == (1 if re.search("micro-batch-size 3|image-size 100|batch-size 100", command) else 2), said
    assert said.startswith("maekit: ")
    assert said.count("\n") == 1


def test_every_verb_is_tried():
    from maekit import cli

    assert set(WRONG) == set(cli.VERBS)
