"""Every block of docs/interoperate.md, run as it stands, in the order of the page."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import maekit
import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native
from processes import in_two_processes

PAGE = Path(__file__).parents[1] / "docs" / "interoperate.md"
NEEDED = {"transformers": "transformers", "PyTorch Lightning": "lightning"}


def blocks(language):
    """(section, number in it, text) of the page's blocks in a language."""
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title = section.partition("\n")[0]
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)
        texts = [text for name, text in fenced if name == language]
        found += [(title, number, text) for number, text in enumerate(texts)]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, photos, maekit_here):
    """A folder with runs/photos, photos and what the page's commands make of them."""
    place = tmp_path_factory.mktemp("guests")
    (place / "runs/photos").mkdir(parents=True)
    config = tiny.model_config(image_size=32, patch_size=8, depth=4)
    target, mean, std = TargetConfig(pixels="normalised"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    torch.manual_seed(0)
    model = MaskedAutoencoder(config, target, MaskConfig(), mean=mean, std=std)
    native.save(model, place / "runs/photos/model.safetensors")
    shutil.copytree(photos, place / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for _, _, commands in blocks(""):
            for command in commands.splitlines():
                done = maekit_here(*shlex.split(command)[1:])
                assert done.returncode == 0, done.stderr
    return place


def run(text, place, monkeypatch):
    """What a block's names stand for in the end."""
    monkeypatch.chdir(place)
    names = {"__name__": "page"}
    exec(compile(text, str(PAGE), "exec"), names)
    return names


@pytest.fixture
def ran(request, place, monkeypatch):
    title, number = request.param
    if title in NEEDED and importlib.util.find_spec(NEEDED[title]) is None:
        pytest.skip(f"{NEEDED[title]} is not installed")
    text = next(text for section, n, text in blocks("python") if (section, n) == (title, number))
    return run(text, place, monkeypatch)


def of(title, number=0):
    return pytest.mark.parametrize("ran", [(title, number)], indirect=True)


TESTED = [("timm", 0), ("timm", 1), ("transformers", 0), ("torchvision", 0), ("scikit-learn", 0)]
TESTED += [("PyTorch Lightning", 0), ("PyTorch Lightning", 1), ("FSDP2", 0)]


def test_no_block_is_forgotten():
    assert [(title, number) for title, number, _ in blocks("python")] == TESTED


@of("timm", 0)
def test_timm_takes_what_was_converted(ran, place):
    model = maekit.load(place / "runs/photos")
    assert torch.equal(ran["encoder"].eval()(ran["images"]), model.encoder(ran["images"]))
    assert [found.shape for found in ran["backbone"](ran["images"])] == [(2, 32, 4, 4)] * 2
    assert ran["tuned"](ran["images"]).shape == (2, 5)


@of("timm", 1)
def test_the_encoder_is_a_timm_model(ran):
    assert torch.allclose(ran["tokens"][:, 1:].mean(1), ran["features"], atol=1e-5)


@of("transformers")
def test_transformers_takes_what_was_converted(ran, place):
    tokens = maekit.load(place / "runs/photos").encoder.forward_features(ran["inputs"]["pixel_values"])
    assert torch.allclose(ran["patches"], tokens[:, 1:], atol=1e-4)
    assert ran["autoencoder"](**ran["inputs"]).loss.isfinite()


@of("torchvision")
def test_torchvision_extracts_by_names_of_nodes(ran):
    assert ran["tokens"].shape == (2, 17, 32)
    images = torch.rand(2, 3, 32, 32)
    last = ran["encoder"].norm(ran["extractor"](images)["last"])
    assert torch.allclose(last, ran["encoder"].forward_features(images), atol=1e-5)


def test_torchvision_names_of_a_swin_are_as_said_and_hiera_is_not_traced():
    timm = pytest.importorskip("timm")
    from torchvision.models.feature_extraction import get_graph_node_names

    swin = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, num_classes=0)
    assert "layers.3.blocks.1.add_1" in get_graph_node_names(swin, suppress_diff_warning=True)[1]
    hiera = timm.create_model("hiera_tiny_224", embed_dim=8, num_classes=0)
    with pytest.raises(RuntimeError, match="len"):
        get_graph_node_names(hiera, suppress_diff_warning=True)


@of("scikit-learn")
def test_scikit_learn_searches_over_an_embedder(ran):
    assert 0 <= ran["search"].best_score_ <= 1
    assert ran["search"].best_estimator_.named_steps["embedder"].transform(ran["paths"]).shape == (12, 32)


@of("PyTorch Lightning", 0)
def test_lightning_trains_an_encoder(ran, place):
    before = maekit.load(place / "runs/photos").encoder.state_dict()
    after = ran["trainer"].model.pretrained.encoder.state_dict()
    assert not torch.equal(before["blocks.0.mlp.fc1.weight"], after["blocks.0.mlp.fc1.weight"])


@of("PyTorch Lightning", 1)
def test_lightning_pretrains_what_maekit_loads(ran, place):
    written = maekit.load(place / "lightning.safetensors")
    assert isinstance(written, maekit.MaskedAutoencoder)
    assert torch.equal(written.encoder.cls_token, ran["pretraining"].model.encoder.cls_token)
    shown = next(text for title, number, text in blocks("python") if (title, number) == ("PyTorch Lightning", 1))
    assert len(shown.partition("class ")[2].partition("\npreset")[0].strip().splitlines()) < 25


def _sharded(text, place):
    with pytest.MonkeyPatch.context() as patch:
        names = run(text, place, patch)
        plain = maekit.load("runs/photos")
        with torch.no_grad():
            expected = plain(plain.standardise(names["images"]), names["masked"]).patches.square().mean()
        shards = sum(parameter.to_local().numel() for parameter in names["model"].parameters())
        torch.distributed.destroy_process_group()
        return float(names["loss"]), float(expected), shards


def test_fsdp_shards_in_two_processes(place):
    text = next(text for title, _, text in blocks("python") if title == "FSDP2")
    said = in_two_processes(_sharded, text, place)
    assert all(one.value is not None for one in said), said[0].err
    for loss, expected, _ in (one.value for one in said):
        assert loss == pytest.approx(expected, rel=1e-5)
    whole = sum(parameter.numel() for parameter in maekit.load(place / "runs/photos").parameters())
    assert sum(one.value[2] for one in said) == whole
