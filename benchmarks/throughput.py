"""Images per second of a full training step (loss, backward, fused AdamW), maekit's beside others'.

Synthetic images on the device, one batch size and precision for all, implementations in turn, several rounds, medians
with their quartiles. MFU is against a matrix product measured in the same run. Peak memory comes from a process of its
own for each implementation.

    python benchmarks/throughput.py --models vit-tiny vit-base --precisions bf16 fp32 --batch-size 8 --rounds 7

Compiled is what `--compile` does, the whole step; by blocks, what it does under FSDP; autotuned, the compiler's longest
search.
"""

import argparse
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from statistics import median

import torch
from measure import Step, alternate, matrix_products, peak_megabytes, rate
from peers import HuggingFace, PlainTimm
from results import write_result
from torch import nn

from maekit.config import DecoderConfig, PretrainConfig, RunConfig
from maekit.data.loader import Batch
from maekit.engine.compiled import step_of, units
from maekit.models import mae
from maekit.models.cost import forward_gflop
from maekit.presets import PRETRAIN
from maekit.recipes.pretrain import PretrainTask

_KINDS = ("maekit", "maekit cross", "maekit cross 1/4")
_HOW = ("", " compiled", " compiled by blocks", " compiled, autotuned")
OURS = tuple(kind + how for kind in _KINDS for how in _HOW)
THEIRS = ("plain timm", "plain timm compiled", "transformers", "transformers compiled")


def main() -> None:
    options = _options()
    if options.peak is not None:
        print(peak_megabytes(lambda: make_step(*options.peak, options), options.device))
        return
    lines: list[str] = []
    for model in options.models:
        for precision in options.precisions:
            lines += _table(options, model, precision)
    write_result("throughput", options.device, lines, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit-tiny", "vit-base"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    usual = ["maekit", "maekit cross", "maekit cross 1/4", "plain timm", "transformers"]
    parser.add_argument("--implementations", nargs="+", default=usual, choices=[*OURS, *THEIRS])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="timed steps in each round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out", default="", help="result file; the default is benchmarks/results/THEME_HARDWARE_DATE.md"
    )
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def _table(options: argparse.Namespace, model: str, precision: str) -> list[str]:
    steps = {name: make_step(name, model, precision, options) for name in options.implementations}
    work = 3 * forward_gflop(_model(_config(model, "maekit")))
    products, flop = matrix_products(options.device, precision)
    seconds = alternate({**steps, **products}, rounds=options.rounds, per_round=options.steps, device=options.device)
    matrix = flop * options.steps / min(min(seconds.pop(name)) for name in products)
    best = min(median(values) for name, values in seconds.items() if name in THEIRS)
    lines = [
        f"## {model}, {precision}, batch {options.batch_size}",
        "",
        f"maekit: the preset's own decoder, {work:.3g} GFLOP an image; a peer's has such blocks over all tokens.",
        "cross: CrossMAE's decoder, of all hidden patches or of 1/4 of them. MFU is against the best matrix product",
        f"between the steps, {matrix / 1e9:,.0f} GFLOP/s.",
        "",
        "| implementation | images/s, median (quartiles) | against the best peer | MFU | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for name, values in seconds.items():
        images = options.batch_size * options.steps
        gflop = work if "cross" not in name else 3 * forward_gflop(_model(_config(model, name)))
        mfu = "" if name in THEIRS else f"{images / median(values) * gflop * 1e9 / matrix:.0%}"
        memory = _peak_elsewhere(options, name, model, precision)
        lines.append(f"| {name} | {rate(images, values)} | {best / median(values):.2f} | {mfu} | {memory:,.0f} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def _config(model: str, name: str) -> PretrainConfig:
    config = PRETRAIN[model]()
    if "cross" not in name:
        return config
    decoder = replace(config.model.decoder, kind="cross", predicted_share=0.25 if "1/4" in name else 1.0)
    assert isinstance(decoder, DecoderConfig)
    return replace(config, model=replace(config.model, decoder=decoder))


def _model(config: PretrainConfig) -> mae.MaskedAutoencoder:
    mean, std = ((0.485, 0.456, 0.406)[: config.model.channels], (0.229, 0.224, 0.225)[: config.model.channels])
    return mae.build(config.model, config.target, config.mask, mean, std, seed=config.run.seed)


def make_network(name: str, model: str) -> nn.Module:
    """The named implementation; a peer begins by standardising."""
    torch.manual_seed(0)
    config = _config(model, name)
    ours = _model(config)
    if name in OURS:
        return ours
    sizes = ours.encoder.embed_dim, len(ours.encoder.blocks), ours.encoder.blocks[0].attn.num_heads, ours.unit[0]
    return nn.Sequential(ours.standardise, (PlainTimm if "timm" in name else HuggingFace)(config, *sizes))


def make_step(
    name: str, model: str, precision: str, options: argparse.Namespace, network: nn.Module | None = None
) -> Step:
    """A call that does one training step of the named implementation."""
    device, count = options.device, options.batch_size
    config = _config(model, name)
    network = network or make_network(name, model).to(device)
    pixels = torch.randint(
        0, 256, (count, config.model.channels, *config.model.image_hw), dtype=torch.uint8, device=device
    )
    if name in OURS:
        task = PretrainTask(network, seed=config.run.seed)
        numbers = torch.arange(count, device=device)
        batch = Batch(pixels, numbers, numbers, numbers * 0, numbers * 0)
        loss = _compiled(task, name)
        forward = lambda: loss(task.prepare(batch))["loss"]  # noqa: E731
    else:
        call = torch.compile(network) if "compiled" in name else network
        forward = lambda: call(pixels)  # noqa: E731
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    context = torch.autocast(device.split(":")[0], torch.bfloat16) if precision == "bf16" else nullcontext()

    def step() -> None:
        with context:
            value = forward()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _compiled(task: PretrainTask, name: str) -> nn.Module:
    """The step: as it is, as `--compile` has it, by blocks alone, or with kernels chosen by timing them."""
    if name.endswith(" compiled"):
        return step_of(task, RunConfig(compile=True))
    step = step_of(task, RunConfig())
    if name.endswith("by blocks"):
        for unit in units(step):
            unit.forward = torch.compile(unit.forward, dynamic=False)
    elif name.endswith("autotuned"):
        step.compile(dynamic=False, mode="max-autotune-no-cudagraphs")
    return step


def _peak_elsewhere(options: argparse.Namespace, name: str, model: str, precision: str) -> float:
    words = ["--peak", name, model, precision, "--device", options.device, "--batch-size", str(options.batch_size)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
