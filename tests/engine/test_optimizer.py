"""Optimizers: who decays, whose rate is scaled, and a state that survives the disk bit by bit."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny
import tiny_families
from maekit import storage
from maekit.config import MaskConfig, OptimizerConfig, TargetConfig
from maekit.engine import optimizer as optimizers
from maekit.errors import StorageError
from maekit.models.mae import MaskedAutoencoder

NAMES = ("adamw", "lars", "sgd", "muon")


def named_parameters():
    config = tiny.model_config(
        register_tokens=2, positions="learned", decoder=tiny.decoder_config(kind="cross", feature_maps=2)
    )
    mean = std = (0.5,) * 3
    model = MaskedAutoencoder(config, TargetConfig(kind="raw"), MaskConfig(), mean=mean, std=std)
    return list(model.named_parameters())


def model_of(kind):
    shape = tiny_families.KINDS[kind]
    means = (0.5,) * shape.channels
    return MaskedAutoencoder(shape, TargetConfig(kind="raw"), tiny_families.mask_for(shape), mean=means, std=means)


def config(name):
    return OptimizerConfig(name=name, lr=0.1, weight_decay=0.05, betas=(0.9, 0.95))


@pytest.mark.parametrize("name", NAMES)
def test_weights_decay_and_biases_norms_tokens_and_positions_do_not(name):
    optimizer = optimizers.build(config(name), named_parameters(), 0.1)
    decay = {n: group["weight_decay"] for group in optimizer.param_groups for n in group["names"]}
    for exempt in (
        "encoder.cls_token", "encoder.reg_token", "encoder.pos_embed", "decoder.mask_token", "encoder.norm.weight",
        "encoder.blocks.0.attn.qkv.bias", "encoder.patch_embed.proj.bias", "decoder.blocks.0.norm1.weight",
    ):  # fmt: skip
        assert decay[exempt] == 0, exempt
    for decayed in ("encoder.blocks.0.attn.qkv.weight", "encoder.patch_embed.proj.weight", "decoder.head.1.weight"):
        assert decay[decayed] == 0.05, decayed
    assert "decoder.positions" not in decay  # fixed


@pytest.mark.parametrize("kind", tiny_families.KINDS)
def test_in_no_family_does_a_token_or_a_position_decay(kind):
    model = model_of(kind)
    optimizer = optimizers.build(config("adamw"), model.named_parameters(), 0.1)
    decayed = {n for group in optimizer.param_groups if group["weight_decay"] for n in group["names"]}
    exempt = ("token", "pos_embed", "positions", "bias", "bias_table", "logit_scale", "cpb_mlp")
    assert [name for name in decayed if any(word in name for word in exempt)] == []
    assert all(name.endswith(".weight") for name in decayed)
    if kind.startswith("swin"):
        assert "adapter.token" in dict(model.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_trained_decays_where_that_is_asked_for(name):
    plain, every = (
        optimizers.build(replace(config(name), decay_all=asked), named_parameters(), 0.1) for asked in (False, True)
    )
    assert {group["weight_decay"] for group in plain.param_groups} == {0.0, 0.05}
    assert {group["weight_decay"] for group in every.param_groups} == {0.05}
    if name == "lars":
        assert [group["always_adapt"] for group in every.param_groups] == [
            group["always_adapt"] for group in plain.param_groups
        ]


def test_factors_scale_the_rate_of_their_parameters_step_after_step():
    parameters = [(name, nn.Parameter(torch.ones(2, 2))) for name in ("low", "high")]
    optimizer = optimizers.build(config("adamw"), parameters, 0.1, {"low": 0.25})
    rates = {n: group["lr"] for group in optimizer.param_groups for n in group["names"]}
    assert rates == {"low": 0.025, "high": 0.1}
    optimizers.set_rate(optimizer, 0.4)
    rates = {n: group["lr"] for group in optimizer.param_groups for n in group["names"]}
    assert rates == {"low": 0.1, "high": 0.4}


def test_lars_scales_matrices_by_their_norms_and_leaves_vectors_alone():
    matrix, vector = nn.Parameter(torch.full((2, 2), 3.0)), nn.Parameter(torch.full((2,), 3.0))
    settings = OptimizerConfig(name="lars", lr=1.0, weight_decay=0.0, betas=(0.0, 0.0))
    optimizer = optimizers.build(settings, [("w", matrix), ("b", vector)], 1.0)
    matrix.grad, vector.grad = torch.full((2, 2), 0.5), torch.full((2,), 0.5)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 3.0 - 0.001 * 6 / 1 * 0.5))
    torch.testing.assert_close(vector.detach(), torch.full((2,), 2.5))


@pytest.mark.parametrize("kind", tiny_families.KINDS)
def test_muon_has_the_matrices_of_blocks_and_adamw_the_rest(kind):
    model = model_of(kind)
    optimizer = optimizers.build(config("muon"), model.named_parameters(), 0.1)
    matrices, others = ({n for group in part.param_groups for n in group["names"]} for part in optimizer.parts)
    modules = dict(model.named_modules())
    inside = {
        f"{name}.weight"
        for name, module in modules.items()
        if isinstance(module, nn.Linear) and ".blocks." in f".{name}." and "cpb_mlp" not in name
    }
    downsampling = {name for name in matrices if "downsample" in name}  # of Swin, between its stages
    assert matrices == inside | downsampling
    assert bool(downsampling) == kind.startswith("swin")
    assert {"encoder.patch_embed.proj.weight", "encoder.norm.weight"} & others
    assert matrices | others == {name for name, p in model.named_parameters() if p.requires_grad}


def test_muon_alone_and_adamw_alone_make_the_same_steps():
    """The two of torch, each with its own parameters, rates, decays and betas."""
    settings = replace(config("muon"), muon_momentum=0.8, eps=1e-3)
    draws = torch.Generator().manual_seed(0)
    values = {"blocks.0.w": torch.randn(6, 4, generator=draws), "blocks.0.bias": torch.randn(4, generator=draws),
              "head.w": torch.randn(3, 4, generator=draws)}  # fmt: skip
    ours, theirs = ({n: nn.Parameter(v.clone()) for n, v in values.items()} for _ in range(2))
    optimizer = optimizers.build(settings, ours.items(), 0.1, {"blocks.0.w": 0.5, "blocks.0.bias": 0.5})
    muon = torch.optim.Muon([theirs["blocks.0.w"]], weight_decay=0.05, momentum=0.8, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs["blocks.0.bias"]], "weight_decay": 0.0, "factor": 0.5},
            {"params": [theirs["head.w"]], "weight_decay": 0.05, "factor": 1.0},
        ],
        betas=settings.betas,
        eps=1e-3,
        fused=True,
    )
    for step in range(4):
        rate = 0.1 / (step + 1)
        for name, value in values.items():
            gradient = torch.randn(value.shape, generator=draws)
            ours[name].grad, theirs[name].grad = gradient, gradient.clone()
        optimizers.set_rate(optimizer, rate)
        optimizers.step_unless(torch.tensor(False), optimizer)
        muon.param_groups[0]["lr"] = rate * 0.5
        for group in adamw.param_groups:
            group["lr"] = rate * group["factor"]
        muon.step()
        adamw.step()
    for name, parameter in ours.items():
        assert torch.equal(parameter, theirs[name]), name
        assert not torch.equal(parameter, values[name]), name


def test_a_step_of_muon_is_as_large_as_one_of_adamw():
    """So that a rate that is known of AdamW serves (arXiv 2502.16982): the entries' root mean square is about .2."""
    for shape in ((48, 16), (16, 48), (32, 32)):
        matrix = nn.Parameter(torch.zeros(shape))
        parameters = [("blocks.0.w", matrix), ("bias", nn.Parameter(torch.zeros(3)))]
        optimizer = optimizers.build(replace(config("muon"), weight_decay=0.0), parameters, 0.1)
        matrix.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
        assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.3)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_spoilt_leaves_weights_and_one_that_is_not_does_not(name):
    parameters = [("blocks.0.w", nn.Parameter(torch.ones(3, 2))), ("b", nn.Parameter(torch.ones(2)))]
    optimizer = optimizers.build(config(name), parameters, 0.1)
    for spoilt in (False, True):
        before = [parameter.detach().clone() for _, parameter in parameters]
        for _, parameter in parameters:
            parameter.grad = torch.full_like(parameter, float("nan") if spoilt else 1.0)
        optimizers.step_unless(torch.tensor(spoilt), optimizer)
        same = [torch.equal(value, parameter) for value, (_, parameter) in zip(before, parameters, strict=True)]
        assert same == [spoilt, spoilt]


@pytest.mark.parametrize("name", NAMES)
def test_a_state_from_the_disk_goes_on_as_if_nothing_had_happened(name, tmp_path):
    def step(optimizer, parameters, number):
        draws = torch.Generator().manual_seed(number)
        for _, parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draws)
        optimizer.step()

    def fresh(values):
        parameters = [(f"blocks.{number}", nn.Parameter(value.clone())) for number, value in enumerate(values)]
        return optimizers.build(config(name), parameters, 0.1), parameters

    optimizer, parameters = fresh([torch.ones(3, 2), torch.ones(2)])
    for number in range(3):
        step(optimizer, parameters, number)
    path = tmp_path / "optimizer.safetensors"
    storage.write_tensors(path, optimizers.state_tensors(optimizer), {})
    resumed, copies = fresh([parameter.detach() for _, parameter in parameters])
    optimizers.restore(resumed, storage.read_tensors(path))
    for number in range(3, 6):
        step(optimizer, parameters, number)
        step(resumed, copies, number)
    for (_, one), (_, other) in zip(parameters, copies, strict=True):
        assert torch.equal(one, other)


def test_a_state_of_other_parameters_is_refused_by_name():
    optimizer = optimizers.build(config("adamw"), [("a", nn.Parameter(torch.ones(2)))], 0.1)
    with pytest.raises(StorageError, match="optimizer state of b: no such parameter"):
        optimizers.restore(optimizer, {"b/exp_avg": torch.ones(2)})
    with pytest.raises(StorageError, match=r"optimizer state of a: is \[3\], not \[2\]"):
        optimizers.restore(optimizer, {"a/exp_avg": torch.ones(3)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("overflows", [0, 2])
def test_a_step_that_overflows_leaves_no_trace(name, overflows):
    def trained(gradients):
        parameters = [("blocks.0", nn.Parameter(torch.ones(3, 2))), ("blocks.1", nn.Parameter(torch.ones(2)))]
        optimizer = optimizers.build(config(name), parameters, 0.1)
        for gradient in gradients:
            for _, parameter in parameters:
                parameter.grad = torch.full_like(parameter, gradient)
            optimizers.step_unless(torch.tensor(math.isinf(gradient)), optimizer, moments=True)
        return [parameter for _, parameter in parameters] + list(optimizers.state_tensors(optimizer).values())

    steps = [0.3, -0.2, 0.5]
    assert all(map(torch.equal, trained([*steps[:overflows], math.inf, *steps[overflows:]]), trained(steps)))
