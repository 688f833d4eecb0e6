"""What an option that is none is told leads on: never to another that is none, nor to one that is refused."""

import re

import pytest

from maekit.config.other_names import OF_TORCHRUN, OTHER_NAMES
from maekit.config.unknown import Asked, explain
from maekit.presets.verbs import options_by_verb

ENOUGH = {
    "demo": "demo",
    "data": "data photos",
    "pack": "pack photos --out o",
    "pretrain": "pretrain vit-tiny photos",
    "probe": "probe photos --weights w --val photos",
    "finetune": "finetune vit-tiny photos --weights w --val photos",
    "scratch": "scratch vit-tiny photos --val photos",
    "watch": "watch r",
    "compare": "compare r s --out c.html",
    "card": "card r",
    "evaluate": "evaluate photos --weights w",
    "classify": "classify a.jpg --weights w",
    "reconstruct": "reconstruct a.jpg --weights w --out o.png",
    "embed": "embed photos --weights w --out f.npz",
    "app": "app w",
    "inspect": "inspect w",
    "convert": "convert w --to timm --out t",
}
"""Of each verb the least that it takes."""
EVERY = options_by_verb()


@pytest.mark.parametrize("verb", ENOUGH)
def test_the_least_is_enough(typed, verb):
    assert typed(ENOUGH[verb]).read


@pytest.mark.parametrize("verb", ENOUGH)
def test_no_name_of_another_tool_leads_to_an_option_that_the_verb_has_not(verb):
    own = {name for option in EVERY[verb] for name in (*option.names, *option.negative)}
    for name in OTHER_NAMES:
        if f"--{name}" in own:
            continue
        line = explain([(f"--{name}", "7")], Asked(verb, f"maekit {verb}", [f"--{name}", "7"], EVERY[verb], dict))
        for named in re.findall(r"(?:maekit has|did you mean) (--[\w.-]+)", line):
            assert named in own, line
        for at in re.findall(r"that is of maekit (.*), not of", line):
            assert verb not in re.split(r", | and ", at), line


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("finetune --crop_size 64", "maekit has --image-size"),
        ("finetune --imagesize 64", "did you mean --image-size?"),
        ("finetune --channels 1", "maekit convert W --to maekit --channels 1 --out NEW"),
        ("finetune --model.channels=1", "maekit convert W --to maekit --channels 1 --out NEW"),
        ("finetune --model.heads 2", "maekit convert W --to maekit --heads 2 --out NEW"),
        ("finetune --model.encoder vit_base_patch16_224.mae", "by --weights hf:timm/vit_base_patch16_224.mae"),
        ("reconstruct --model.channels 1", "did you mean --channels?"),
        ("scratch --ckpt w", "that is of maekit pretrain, probe, finetune,"),
        ("scratch --decoder-dim 64", "that is of maekit pretrain, not"),
        ("scratch --norm_pix_loss", "that is of maekit pretrain, not"),
        ("probe --decoder_embed_dim 64", "that is of maekit pretrain, not"),
        ("inspect --images 3", "that is of maekit data and plan, not"),
        ("evaluate --top 3", "that is of maekit classify, not"),
        ("pretrain --rows 3", "that is of maekit reconstruct, not"),
        ("pretrain --mixup 0.8", "that is of maekit finetune and scratch, not"),
        ("pretrain --lars 1", "maekit has --optimizer.name lars"),
        ("pretrain --optimizer_name adamw", "maekit has --optimizer.name adamw|lars|sgd"),
        ("pretrain --Epochs=3", "did you mean --epochs?"),
        ("pretrain --mask.ration 0.5", "did you mean --mask-ratio?"),
        ("pretrain -epochs 3", "did you mean --epochs?"),
        ("pretrain -b 3", "maekit has --batch-size"),
        ("data --wrokers 3", "did you mean --workers?"),
        ("pretrain --no-tensorboard", "did you mean --run.no-tensorboard?"),
        ("pretrain --tensorboard", "did you mean --run.tensorboard?"),
        ("pretrain --mask_type block", "maekit has --mask.kind random|block|grid|one_in_2x2"),
        ("finetune --linear-probe", "judging frozen features is maekit probe"),
        ("demo --frobnicate", "maekit demo --help-all lists all there are"),
    ],
)
def test_the_answer_fits_the_verb(typed, command, expected):
    verb, *words = command.split()
    answer = typed(ENOUGH[verb], *words)
    assert answer.code == 2
    assert f"no option {words[0].split('=')[0]}" in answer.line
    assert expected in answer.line


def test_a_preset_that_comes_late_is_put_first(typed):
    assert typed("pretrain --data photos vit-tiny --epochs 3").line.endswith(
        "then the options: maekit pretrain vit-tiny --data photos --epochs 3"
    )


def test_all_options_that_are_none_are_answered_at_once(typed):
    answer = typed("pretrain vit-tiny photos --max_epochs 300 --crop_size=64 --num_workers 8 --epochs 3")
    assert answer.line == (
        "maekit: no option --max_epochs; maekit has --epochs · no option --crop_size; maekit has --image-size · "
        "no option --num_workers; maekit has --workers"
    )


@pytest.mark.parametrize("verb", ["pretrain", "probe", "finetune", "scratch"])
@pytest.mark.parametrize(
    "wish", ["--gpus 2", "--ngpus=2", "--devices 2", "--num-gpus 2", "--num_gpus=2", "--world-size 2"]
)
def test_a_number_of_devices_is_torchruns(typed, verb, wish):
    answer = typed(ENOUGH[verb], wish)
    assert answer.code == 2
    assert answer.line.endswith(f": torchrun --nproc-per-node 2 -m maekit {ENOUGH[verb]}")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--gpus 0,1,3 --epochs 3", "CUDA_VISIBLE_DEVICES=0,1,3 torchrun --nproc-per-node 3 -m maekit OURS --epochs 3"),
        ("--gpus all", "torchrun --nproc-per-node gpu -m maekit OURS"),
        ("--gpus -1", "torchrun --nproc-per-node gpu -m maekit OURS"),
        ("--distributed", "torchrun --nproc-per-node N -m maekit OURS"),
        ("--strategy ddp --gpus 4", "torchrun --nproc-per-node 4 -m maekit OURS"),
        (
            "--num_nodes 2 --gpus 4",
            "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 4 -m maekit OURS",
        ),
        ("--gpus 1", "one process uses one device, without being told: maekit OURS"),
    ],
)  # fmt: skip
def test_what_else_launchers_are_told_goes_to_torchrun(typed, words, command):
    answer = typed(ENOUGH["pretrain"], words)
    assert answer.line.endswith(": " + command.replace("OURS", ENOUGH["pretrain"]))


def test_a_word_after_a_launchers_switch_stays(typed):
    assert typed("pretrain vit-tiny --distributed photos").line.endswith("-m maekit pretrain vit-tiny photos")


@pytest.mark.parametrize("verb", [verb for verb in ENOUGH if verb not in ("pretrain", "probe", "finetune", "scratch")])
def test_verbs_of_one_device_say_so(typed, verb):
    for name in sorted(OF_TORCHRUN):
        assert f"maekit {verb} uses one device" in typed(ENOUGH[verb], f"--{name}", "2").line
