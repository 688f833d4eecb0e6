"""Optimizers: who decays, whose rate is scaled, and a state that survives the disk bit by bit."""

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

NAMES = ("adamw", "lars", "sgd")


def named_parameters():
    config = tiny.model_config(
        register_tokens=2, positions="learned", decoder=tiny.decoder_config(kind="cross", feature_maps=2)
    )
    mean = std = (0.5,) * 3
    model = MaskedAutoencoder(config, TargetConfig(kind="raw"), MaskConfig(), mean=mean, std=std)
    return list(model.named_parameters())


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
    shape = tiny_families.KINDS[kind]
    means = (0.5,) * shape.channels
    mask = tiny_families.mask_for(shape)
    model = MaskedAutoencoder(shape, TargetConfig(kind="raw"), mask, mean=means, std=means)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_state_from_the_disk_goes_on_as_if_nothing_had_happened(name, tmp_path):
    def step(optimizer, parameters, number):
        draws = torch.Generator().manual_seed(number)
        for _, parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draws)
        optimizer.step()

    def fresh(values):
        parameters = [(f"p{number}", nn.Parameter(value.clone())) for number, value in enumerate(values)]
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
