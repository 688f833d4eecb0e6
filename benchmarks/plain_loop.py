"""transformers' ViTMAEForPreTraining, trained as a competent user writes it: ImageFolder, torchvision, AdamW, cosine.

    python benchmarks/plain_loop.py --data FOLDER --out FOLDER --steps 500 --decoder 192 4 3

Nothing of maekit is used. Prints JSON: steps, the last loss, images per CPU second in the second half, on a GPU per
second.
"""

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from transformers import ViTMAEConfig, ViTMAEForPreTraining

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    options = _options()
    torch.manual_seed(options.seed)
    loader = _loader(options)
    device = torch.device(options.device)
    model = _model(options).train().to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95), fused=True)
    warmup = max(1, round(options.warmup * options.steps))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    half = options.precision == "bf16"
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    loss, half_way = torch.zeros(()), 0.0
    for step, images in enumerate(_batches(loader, options.steps)):
        if step == options.steps // 2:
            half_way = clock()
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            loss = model(pixel_values=images.to(device, non_blocking=True)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
    last = loss.item()  # waits for the device
    seconds = clock() - half_way
    images = (options.steps - options.steps // 2) * options.batch_size
    if options.out:
        model.save_pretrained(options.out)
    print(json.dumps({"steps": options.steps, "loss": last, "images_per_second": images / seconds}))


def _model(options: argparse.Namespace) -> ViTMAEForPreTraining:
    width, depth, heads = options.encoder
    decoder_width, decoder_depth, decoder_heads = options.decoder
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            image_size=options.image_size,
            patch_size=options.patch_size,
            decoder_hidden_size=decoder_width,
            decoder_num_hidden_layers=decoder_depth,
            decoder_num_attention_heads=decoder_heads,
            decoder_intermediate_size=4 * decoder_width,
            mask_ratio=options.mask_ratio,
            norm_pix_loss=True,
        )
    )


def _loader(options: argparse.Namespace) -> DataLoader:
    bicubic = transforms.InterpolationMode.BICUBIC
    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(options.image_size, scale=(0.2, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = datasets.ImageFolder(options.data, prepare)
    pinned = options.device != "cpu"
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0, "pin_memory": pinned}
    return DataLoader(images, options.batch_size, shuffle=True, drop_last=True, **workers)


def _batches(loader: DataLoader, steps: int) -> Iterator[torch.Tensor]:
    done = 0
    while True:
        for images, _ in loader:
            yield images
            done += 1
            if done == steps:
                return


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of class folders")
    parser.add_argument("--out", default="", help="folder of the weights, in transformers' layout")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2.4e-3)
    parser.add_argument("--warmup", type=float, default=0.05, help="share of the steps")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--mask-ratio", type=float, default=0.75)
    parser.add_argument("--encoder", type=int, nargs=3, default=(192, 12, 3), help="width, depth, heads")
    parser.add_argument("--decoder", type=int, nargs=3, default=(512, 8, 16), help="width, depth, heads")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
