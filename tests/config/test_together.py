"""Options that others make vain are refused, none is passed over."""

import pytest

BASES = {
    "pretrain": "pretrain vit-tiny photos",
    "plan": "plan vit-tiny",
    "finetune": "finetune vit-tiny photos --weights w --val v",
    "scratch": "scratch vit-tiny photos --val v",
    "probe": "probe photos --weights w --val v",
    "reconstruct": "reconstruct a.jpg --weights w --out o.png",
    "embed": "embed photos --weights w --out f.npz",
    "inspect": "inspect w",
    "data": "data",
}


@pytest.mark.parametrize(
    ("verb", "vain", "beside", "instead"),
    [
        ("reconstruct", "--mask-ratio 0.5", "--mask m.png", ""),
        ("reconstruct", "--mask_ratio=0.5", "--mask=m.png", ""),
        ("reconstruct", "--seed 3", "--mask m.png", ""),
        ("probe", "--features class", "--sweep", ""),
        ("probe", "--blocks 1 4", "--sweep", ""),
        ("probe", "--neighbours 20", "--kinds linear", "--kinds knn"),
        ("probe", "--temperature 0.1", "--kinds linear", "--kinds knn"),
        ("probe", "--linear paper", "--kinds knn", "--kinds linear"),
        ("probe", "--epochs 3", "--kinds knn linear", "--kinds attentive"),
        ("probe", "--base-lr 3", "--kinds linear", "--linear paper"),
        ("probe", "--trust-coefficient 3", "--linear fast", "--linear paper"),
        ("probe", "--token-memory 3", "--kinds knn", "--kinds attentive"),
        ("probe", "--queries 8", "--kinds knn attentive", "--kinds efficient"),
        ("pretrain", "--mean 0.5 0.5 0.5", "", "--normalise given --std 0.5 0.5 0.5"),
        ("pretrain", "--data.cache-limit 5", "--data.no-shuffle", "--data.shuffle"),
        ("pretrain", "--data.decode reduced", "--data.range 0 255", "--data.decode reduced"),
        ("pretrain", "--augment.scale 0.5 1", "--augment.crop center", "--augment.crop random"),
        ("pretrain", "--augment.color-jitter-prob 0.8", "", "--augment.color-jitter 0.4"),
        ("pretrain", "--base-lr 1e-3", "--lr 1e-3", ""),
        ("pretrain", "--optimizer.eps 1e-6", "--optimizer.name lars", "--optimizer.name adamw"),
        ("pretrain", "--optimizer.eps 1e-6", "--optimizer.name sgd", "--optimizer.name muon"),
        ("pretrain", "--optimizer.muon-momentum 0.9", "", "--optimizer.name muon"),
        ("pretrain", "--run.no-reshard-after-forward", "", "--run.parallel fsdp"),
        ("pretrain", "--optimizer.trust-coefficient 0.02", "", "--optimizer.name lars"),
        ("pretrain", "--epochs 3", "--steps 9", ""),
        ("pretrain", "--schedule.micro-batch-limit 8", "--micro-batch-size 8", ""),
        ("pretrain", "--schedule.min-lr 1e-6", "--schedule.course constant", ""),
        ("pretrain", "--schedule.cooldown 0.3", "", "--schedule.course linear_cooldown"),
        ("pretrain", "--allow-drift", "--out r", "--branch b --out r"),
        ("pretrain", "--overwrite", "--resume --out r", "--out r"),
        ("pretrain", "--resume", "", "--out r"),
        ("pretrain", "--overwrite", "", "--out r"),
        ("pretrain", "--allow-drift", "--out r", "--resume --out r"),
        ("pretrain", "--val-every 3", "", "--val v"),
        ("pretrain", "--validation.images 3", "", "--val v"),
        ("plan", "--images 9", "--data photos", ""),
        ("plan", "--measure", "--images 9", "--data photos"),
        ("plan", "--rate 9", "--data photos --measure", "--data photos"),
        ("plan", "--augment.flip 0", "--images 9", "--data photos --measure"),
        ("plan", "--data.decode full", "--images 9", "--data photos --measure"),
        ("plan", "--device cpu", "--images 9", "--data photos --measure"),
        ("finetune", "--mix.prob 0.5", "--mix.mixup 0 --mix.cutmix 0", "--mix.mixup 0.8"),
        ("finetune", "--mix.switch-prob 0.5", "--mix.cutmix 0", "--mix.mixup 0.8 --mix.cutmix 1"),
        ("embed", "--resample-positions", "", "--image-size 64"),
        ("data", "--images 5", "--clear-cache", "--clear-cache photos"),
    ],
)
def test_what_another_option_makes_vain_is_refused(typed, verb, vain, beside, instead):
    """beside: what makes it so. instead: with this it is heeded."""
    for words in (f"{vain} {beside}", f"{beside} {vain}"):
        answer = typed(BASES[verb], words)
        assert answer.code == 2, words
        assert answer.line.startswith(f"maekit: {vain.split()[0].split('=')[0].replace('_', '-')}: ")
    assert typed(BASES[verb], vain, instead).read


@pytest.mark.parametrize(
    ("verb", "words", "leads"),
    [
        ("pretrain", "--optimizer.layer-decay 0.5", "finetune and scratch"),
        ("plan", "--out r", "pretrain"),
        ("finetune", "--validation.images 3", "pretrain"),
        ("finetune", "--branch r", "pretrain"),
        ("finetune", "--schedule.resolutions 32 0.5", "pretrain"),
        ("scratch", "--weights w", "maekit finetune"),
        ("scratch", "--model.decoder.width 64", "pretrain"),
        ("scratch", "--classifier.image-size 64", "--image-size"),
        ("inspect", "--channels 1", "maekit convert"),
        ("inspect", "--resample-positions", "maekit convert"),
    ],
)
def test_what_serves_in_no_case_says_where_it_does(typed, verb, words, leads):
    answer = typed(BASES[verb], words)
    assert answer.code == 2
    assert answer.line.startswith(f"maekit: {words.split()[0]}: ")
    assert leads in answer.line


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("pretrain", "--model.encoder timm/vit_base_patch16_224.mae"),
        ("pretrain", "--model.encoder vit_base_patch16_224.mae"),
        ("pretrain", "--model.encoder=hf:timm/vit_base_patch16_224"),
        ("scratch", "--model.encoder vit_base_patch16_224.augreg_in21k"),
        ("pretrain", "--model.encoder runs/photos/model.safetensors"),
        ("embed", "--encoder vit_base_patch16_224.mae"),
        ("inspect", "--encoder timm/vit_base_patch16_224.mae"),
    ],
)
def test_pretrained_weights_in_an_encoders_name_are_refused(typed, verb, words):
    answer = typed(BASES[verb], words)
    assert answer.code == 2
    assert "by --weights" in answer.line
    assert typed(BASES["pretrain"], "--model.encoder vit_base_patch16_224").read
