"""Exported graphs beside the model, and opened where maekit is not installed."""

import json
import sys

import numpy as np
import pytest
import torch

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import ConvertOptions
from maekit.errors import WeightsError
from maekit.inference import convert as converting
from maekit.inference.convert import convert
from maekit.patches import take
from maekit.weights import export, native
from maekit.weights.blueprint import Blueprint
from without_maekit import run_without_maekit

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZES = {"depth": 1, "decoder": tiny.decoder_config(depth=1)}
KINDS = {"masked_autoencoder": "reconstructor", "classifier": "classifier", "encoder": "encoder"}

RUN = """
import json, sys
import numpy as np
path, arrays, out = sys.argv[1:]
inputs = dict(np.load(arrays))
if path.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results, facts = {}, session.get_modelmeta().custom_metadata_map
    def run(given):
        return session.run(None, given)
else:
    import torch
    extra = {"maekit.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    facts = json.loads(extra["maekit.json"])
    def run(given):
        found = module(*map(torch.from_numpy, given.values()))
        return [t.detach().numpy() for t in (found if isinstance(found, tuple) else (found,))]
outputs = {}
for n in ("1", "2", "5"):
    given = {name.split("_")[0]: array for name, array in inputs.items() if name.endswith("_" + n)}
    outputs |= {f"{place}_{n}": array for place, array in enumerate(run(given))}
np.savez(out, **outputs)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def exported(model_of, tmp_path_factory):
    """Every kind of model written in both forms: {(kind, to): (model, path, answer)}."""
    folder, written = tmp_path_factory.mktemp("exports"), {}
    for kind in KINDS:
        model = model_of(kind, pooling="class", **SIZES)
        native.save(model, folder / f"{kind}.safetensors")
        for to, suffix in (("onnx", "onnx"), ("torch-export", "pt2")):
            path = folder / f"{kind}.{suffix}"
            options = ConvertOptions(weights=str(folder / f"{kind}.safetensors"), to=to, out=str(path))
            written[kind, to] = (model, path, convert(options))
    return written


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_maekit_it_gives_what_the_model_gives(exported, kind, to, tmp_path):
    model, path, answer = exported[kind, to]
    graph = export.graph_of(model)
    examples = {n: export.example(graph, n, seed=10 + n) for n in (1, 2, 5)}
    arrays = {f"{name}_{n}": t.numpy() for n, e in examples.items() for name, t in zip(graph.inputs, e, strict=True)}
    np.savez(tmp_path / "in.npz", **arrays)
    printed = run_without_maekit(RUN, path, tmp_path / "in.npz", tmp_path / "out.npz")
    found, facts = np.load(tmp_path / "out.npz"), json.loads(printed.splitlines()[-1])
    for n, inputs in examples.items():
        with torch.no_grad():
            expected = eager(model, *inputs)
        for place, values in enumerate(expected):
            other = torch.from_numpy(found[f"{place}_{n}"])
            other = take(other, hidden(model, inputs[1])) if kind == "masked_autoencoder" else other
            assert torch.allclose(other, values, atol=1e-4, rtol=0)
            assert torch.equal(other.argmax(-1), values.argmax(-1))
    assert json.loads(facts["mean"]) == pytest.approx([0.5, 0.4, 0.3])
    assert answer.part == KINDS[kind]
    assert answer.difference < 1e-4
    if kind == "classifier":
        assert json.loads(facts["classes"]) == ["jay", "kite", "owl"]
    if kind == "masked_autoencoder":
        assert (json.loads(facts["target"]), json.loads(facts["grid"])) == ("normalised", [4, 6])


def hidden(model, visible):
    masked = torch.ones(len(visible), model.grid[0] * model.grid[1], dtype=torch.bool).scatter(1, visible, False)
    return masked.nonzero()[:, 1].view(len(visible), -1)


def eager(model, images, visible=None):
    """What the model itself gives, on its own path."""
    if visible is not None:
        masked = torch.ones(len(images), model.grid[0] * model.grid[1], dtype=torch.bool).scatter(1, visible, False)
        return (model(images, masked).patches,)
    if hasattr(model, "head"):
        return (model(images),)
    plain = images * model.standardise.std + model.standardise.mean  # features() standardises, a graph does not
    return model._features(model.standardise(plain), "pooled", 1), model.encoder.forward_features(images)


def test_another_number_of_visible_patches(exported):
    model, path, _ = exported["masked_autoencoder", "torch-export"]
    program = torch.export.load(path).module()
    for count in (1, 3, 11, 23):
        images, visible = torch.randn(2, 3, 16, 24), torch.arange(count).expand(2, -1).contiguous()
        with torch.no_grad():
            found = take(program(images, visible), hidden(model, visible))
            assert torch.allclose(found, eager(model, images, visible)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"decoder": tiny.decoder_config(kind="cross", feature_maps=2), "register_tokens": 2}, "masked_autoencoder"),
        ({"decoder": tiny.decoder_config(head="norm_conv_transpose"), "class_token": False}, "masked_autoencoder"),
        ({"encoder": "hiera_tiny_224", "image_size": 64, "width": 8}, "classifier"),
    ],
)
def test_other_architectures(model_of, config, kind, tmp_path):
    if "encoder" in config:
        config = {**config, "patch_size": None, "depth": None, "heads": None}
    native.save(model_of(kind, **config), tmp_path / "w.safetensors")
    to, suffix = ("onnx", "onnx") if "encoder" in config else ("torch-export", "pt2")
    out = tmp_path / f"w.{suffix}"
    answer = convert(ConvertOptions(weights=str(tmp_path / "w.safetensors"), to=to, out=str(out)))
    assert answer.difference < 1e-4


def test_a_graph_that_differs_is_not_believed(model_of, monkeypatch, tmp_path):
    def save_another(graph, path):
        torch.nn.init.constant_(graph.model.head.bias, 3)
        export.save_torch_export(graph, path)
        torch.nn.init.constant_(graph.model.head.bias, 0)

    native.save(model_of("classifier", **SIZES), tmp_path / "w.safetensors")
    monkeypatch.setitem(converting._GRAPHS, "torch-export", save_another)
    with pytest.raises(WeightsError, match="differs from the model by"):
        convert(ConvertOptions(weights=str(tmp_path / "w.safetensors"), to="torch-export", out=str(tmp_path / "w.pt2")))
    assert not (tmp_path / "w.pt2").exists()


@pytest.mark.parametrize(
    "encoder", [{"encoder": "hiera_tiny_224"}, {"encoder": "swin_tiny_patch4_window7_224", "window": 12}]
)
def test_no_graph_of_what_would_keep_the_numbers_of_an_example(encoder, tmp_path):
    sizes = {**encoder, "image_size": 192, "width": 24, "patch_size": None, "depth": None, "heads": None}
    target, mask = TargetConfig(kind="raw"), MaskConfig(kind="one_in_2x2")
    config = tiny.model_config(**sizes)
    model = native.build(Blueprint("masked_autoencoder", config, (0.5,) * 3, (0.5,) * 3, target, mask))
    native.save(model, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="--part encoder leaves the decoder out"):
        convert(ConvertOptions(weights=str(tmp_path / "w.safetensors"), to="onnx", out=str(tmp_path / "w.onnx")))
    assert not (tmp_path / "w.onnx").exists()


def test_missing_packages_are_named(model_of, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(WeightsError, match=r"pip install 'maekit\[export\]'"):
        export.save_onnx(export.graph_of(model_of("encoder")), tmp_path / "w.onnx")
