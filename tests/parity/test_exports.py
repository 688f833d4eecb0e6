"""Fixtures, converted, opened by timm, transformers and onnxruntime without maekit: still the recorded outputs."""

import json
from pathlib import Path

import pytest

from maekit.config.verbs import ConvertOptions, WeightsOptions
from maekit.inference.convert import convert
from without_maekit import run_without_maekit

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
GIVEN = WeightsOptions(heads=3, decoder_heads=4, image_size=32)
CONVERTED = [
    ("facebook_mae_full", "timm"),
    ("facebook_mae_full", "huggingface"),
    ("facebook_mae_full", "onnx"),
    ("facebook_mae_encoder_only", "huggingface"),
    ("facebook_finetuned_pooled", "timm"),
    ("facebook_finetuned_cls_token", "timm"),
    ("facebook_finetuned_cls_token", "huggingface"),
    ("flyegle_mae", "onnx"),
    ("flyegle_finetuned", "huggingface"),
]

PROGRAM = """
import json
from pathlib import Path
import numpy as np, onnxruntime, timm, torch, transformers

exports, fixtures = map(Path, sys.argv[1:3])
MASKED = {"facebook_mae_full": "facebook_mae", "facebook_mae_encoder_only": "facebook_mae"}

def recorded(name):
    with np.load(fixtures / f"{MASKED.get(name, name)}_io.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}

def with_timm(path, name, example):
    model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    if "logits" in example:
        return model(example["images"]) - example["logits"]
    return model.forward_features(example["images"]) - example["features_unmasked"]

def with_transformers(path, name, example):
    images, masked = example["images"], example.get("masked")
    if "logits" in example:
        return transformers.ViTForImageClassification.from_pretrained(path)(images).logits - example["logits"]
    if name == "facebook_mae_encoder_only":
        model = transformers.ViTModel.from_pretrained(path, add_pooling_layer=False).eval()
        return model(images).last_hidden_state - example["features_unmasked"]
    model = transformers.ViTMAEForPreTraining.from_pretrained(path).eval()
    return (model(images, noise=masked + torch.rand(masked.shape) / 2).logits - example["prediction"])[masked]

def with_onnxruntime(path, name, example):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = example["images"]
    if "logits" in example:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) - example["logits"]
    masked = example["masked"]
    visible = (~masked).nonzero()[:, 1].view(len(masked), -1)
    found = torch.from_numpy(session.run(None, {"images": images.numpy(), "visible": visible.numpy()})[0])
    if "prediction" in example:
        return (found - example["prediction"])[masked]
    patches = example["restored"].unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1)
    return (found - patches.reshape(found.shape))[masked]

OPEN = {"timm": with_timm, "huggingface": with_transformers, "onnx": with_onnxruntime}
found = {}
with torch.no_grad():
    for path in sorted(exports.iterdir()):
        name, to = path.name.split(".")
        found[path.name] = float(OPEN[to](path, name, recorded(name)).abs().max())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for name, to in CONVERTED:
        weights, out = str(FIXTURES / f"{name}.pth"), str(folder / f"{name}.{to}")
        convert(ConvertOptions(weights=weights, to=to, out=out, **vars(GIVEN)))
    return json.loads(run_without_maekit(PROGRAM, folder, FIXTURES).splitlines()[-1])


@pytest.mark.parametrize(("name", "to"), CONVERTED)
def test_export_gives_what_was_recorded(differences, name, to):
    print(f"{differences[f'{name}.{to}']:.1e}")  # shown by -rP
    assert differences[f"{name}.{to}"] < 1e-4
