"""W in every form, and what is said where it cannot be read."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tiny
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights import native
from maekit.weights.load import classifier, find, load, reconstructor

KINDS = ["masked_autoencoder", "classifier", "encoder"]


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("kind", KINDS)
def test_maekits_own_file(kind, model_of, tmp_path):
    model = model_of(kind)
    native.save(model, tmp_path / "model.safetensors")
    read = load(tmp_path)
    assert type(read) is type(model)
    assert same(read, model)
    assert not read.training
    assert native.metadata(read) == native.metadata(model)


@pytest.mark.parametrize("kind", ["masked_autoencoder", "encoder"])
def test_the_crop_it_was_validated_with_is_kept(kind, model_of, tmp_path):
    model = model_of(kind)
    assert "crop_share" not in native.metadata(model)["maekit"]
    model.crop_share = 0.75
    native.save(model, tmp_path / "model.safetensors")
    assert load(tmp_path).crop_share == native.encoder_of(load(tmp_path)).crop_share == 0.75


@pytest.mark.parametrize("share", ["0", "1.5", '"half"', "[]"])
def test_a_crop_that_cannot_be(share, model_of, tmp_path):
    model = model_of("encoder")
    facts = native.metadata(model)["maekit"].replace('"layout"', f'"crop_share": {share}, "layout"')
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"maekit": facts})
    with pytest.raises(WeightsError, match="its header is damaged"):
        load(tmp_path / "w.safetensors")


def test_random_state_is_left_alone(model_of, tmp_path):
    native.save(model_of("encoder"), tmp_path / "model.safetensors")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_without_its_model_yet_has_that_of_the_newest_checkpoint(tmp_path):
    for step in ("step-9", "step-100", "step-100.part", "step-x"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "model.safetensors").touch()
    assert find(tmp_path).parent.name == "step-100"


@pytest.mark.parametrize(("place", "reason"), [("nowhere", "no such file"), ("", "is it a run folder")])
def test_nothing_there(place, reason, tmp_path):
    with pytest.raises(WeightsError, match=reason):
        load(tmp_path / place)


def test_who_can_do_what(model_of, tmp_path):
    for kind in KINDS:
        native.save(model_of(kind), tmp_path / f"{kind}.safetensors")
    assert reconstructor(tmp_path / "masked_autoencoder.safetensors").config.decoder.depth == 2
    assert classifier(tmp_path / "classifier.safetensors").classes == ("jay", "kite", "owl")
    with pytest.raises(WeightsError, match="holds an encoder alone, which has no decoder, so it cannot reconstruct"):
        reconstructor(tmp_path / "encoder.safetensors")
    with pytest.raises(WeightsError, match="holds a classifier, which has no decoder"):
        reconstructor(tmp_path / "classifier.safetensors")
    with pytest.raises(WeightsError, match="holds a masked autoencoder, which has no head"):
        classifier(tmp_path / "masked_autoencoder.safetensors")


def test_head_counts_are_asked_for(fixture_path):
    with pytest.raises(WeightsError, match=r"give --heads .* and --decoder-heads "):
        load(fixture_path("facebook_mae_full"))


@pytest.mark.parametrize("options", [{"heads": 5, "decoder_heads": 4}, {"heads": 3, "decoder_heads": 5}])
def test_head_counts_that_cannot_be(options, fixture_path):
    with pytest.raises(WeightsError, match=r"heads 5: does not divide the width, (48|32)"):
        load(fixture_path("facebook_mae_full"), WeightsOptions(**options))


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_exported_graphs_are_not_weights(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match="is an exported graph"):
        load(tmp_path / name)


def test_published_sizes_need_nothing(tmp_path):
    """The head count of width 192 is known; other heads than that make it a model of its own sizes."""
    config = tiny.model_config(image_size=32, patch_size=16, width=192, heads=3, depth=12, norm_eps=1e-6)
    model = native.build(native.Blueprint("encoder", config, (0.5,) * 3, (0.5,) * 3))
    torch.save({"model": model.encoder.state_dict()}, tmp_path / "w.pth")
    read = load(tmp_path / "w.pth")
    assert (read.config.encoder, read.config.width) == ("vit_tiny_patch16_224", None)
    assert load(tmp_path / "w.pth", WeightsOptions(heads=6)).encoder.blocks[0].attn.num_heads == 6


def test_an_assumption_is_said(fixture_path, caplog):
    options = {"heads": 3, "decoder_heads": 4}
    load(fixture_path("facebook_mae_full"), WeightsOptions(**options))
    assert "target: unknown" in caplog.text
    caplog.clear()
    model = load(fixture_path("facebook_mae_full"), WeightsOptions(**options, target="normalised"))
    assert model.target.kind == "normalised"
    assert not caplog.text


@pytest.mark.parametrize("header", ["{", "[]", "{}", '{"layout": 99}', '{"layout": 1, "kind": "poem", "model": 3}'])
def test_a_damaged_description(header, tmp_path):
    save_file({"encoder.patch_embed.proj.weight": torch.ones(1)}, tmp_path / "w.safetensors", {"maekit": header})
    with pytest.raises(WeightsError, match=r"w\.safetensors.*(damaged|newer maekit)"):
        load(tmp_path / "w.safetensors")


def test_a_description_that_is_not_of_these_tensors(model_of, tmp_path):
    model = model_of("encoder")
    facts = json.loads(native.metadata(model)["maekit"])
    facts["model"]["depth"] = 5
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"maekit": json.dumps(facts)})
    with pytest.raises(WeightsError, match="the file's encoder has 3 blocks, the model's 5"):
        load(tmp_path / "w.safetensors")


def test_an_unknown_layout(tmp_path):
    save_file({"conv1.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"no layout maekit knows \(maekit, huggingface, .*conv1\.weight"):
        load(tmp_path / "w.safetensors")


def test_shapes_that_make_no_model(tmp_path):
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    torch.save({"model": {name: torch.ones(2) for name in names}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="named as facebook, but makes no model"):
        load(tmp_path / "w.pth")


@pytest.fixture
def hub_folder(model_of, tmp_path, monkeypatch):
    """A hub that holds one repository; what was asked of it."""
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, "model.safetensors" in allow_patterns))
        if repository != "someone/birds":
            raise OSError("404\nnot found")
        return str(tmp_path)

    native.save(model_of("encoder"), tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_weights_from_the_hub(hub_folder, model_of):
    assert same(load("hf:someone/birds@v2"), model_of("encoder"))
    assert hub_folder == [("someone/birds", "v2", True)]


@pytest.mark.usefixtures("hub_folder")
def test_a_hub_that_cannot_be_asked():
    with pytest.raises(WeightsError, match=r"hf:no/body: cannot be downloaded \(404 not found\); check the name"):
        load("hf:no/body")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
def test_features_are_not_called_damaged_weights(tmp_path, suffix):
    (tmp_path / f"photos{suffix}").write_bytes(b"PK")
    with pytest.raises(WeightsError, match="the features that `maekit embed` writes, and no weights"):
        load(tmp_path / f"photos{suffix}")
