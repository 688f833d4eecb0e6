"""How far maekit is from the code that other people's files were written by: the table in docs/weights.md.

`python benchmarks/parity.py`, from the repository's root. The fixtures are small models of random weights, with what
their own code made of random images, in float32 on a CPU.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maekit.config.verbs import WeightsOptions
from maekit.models.classifier import Classifier
from maekit.models.mae import MaskedAutoencoder
from maekit.patches import patchify, take
from maekit.weights.load import load

FIXTURES = Path("tests/fixtures/parity")
GIVEN = WeightsOptions(heads=3, decoder_heads=4, image_size=32, target="raw")
RECORDINGS = {
    "facebook_mae_full": "facebook_mae",
    "facebook_mae_encoder_only": "facebook_mae",
    "facebook_finetuned_pooled": "facebook_finetuned_pooled",
    "facebook_finetuned_cls_token": "facebook_finetuned_cls_token",
    "flyegle_mae": "flyegle_mae",
    "flyegle_finetuned": "flyegle_finetuned",
}


@torch.no_grad()
def compare(name: str, recording: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(maekit's, recorded) by what is compared."""
    model = load(FIXTURES / f"{name}.pth", GIVEN)
    with np.load(FIXTURES / f"{recording}_io.npz") as arrays:
        example = {key: torch.from_numpy(arrays[key]) for key in arrays}
    images, pairs = example["images"], {}
    if isinstance(model, Classifier):
        pairs["logits"] = model(images), example["logits"]
    if "features_unmasked" in example:
        pairs["tokens of whole images"] = model.encoder.forward_features(images), example["features_unmasked"]
    if isinstance(model, MaskedAutoencoder):
        found = model(images, example["masked"])
        every = example["prediction"] if "prediction" in example else patchify(example["restored"], model.unit)
        pairs["predicted patches"] = found.patches, take(every, found.index)
    return pairs


def main() -> None:
    print("| file | compared | largest absolute difference | largest value |\n|---|---|---|---|")
    for name, recording in RECORDINGS.items():
        for what, (found, expected) in compare(name, recording).items():
            difference, largest = (found - expected).abs().max(), expected.abs().max()
            print(f"| `{name}` | {what} | {difference:.1e} | {largest:.2g} |")


if __name__ == "__main__":
    main()
