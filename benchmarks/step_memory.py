"""Peak memory of a whole training step (weights, gradients, moments, activations), maekit's beside others'.

Counted, not measured: each implementation takes two steps on torch's fake tensors, every allocation is seen and no
number computed, so that a ViT-B with 64 images takes seconds. `benchmarks/memory_plan.py` holds the same count to the
memory of real processes; `benchmarks/throughput.py` measures smaller batches for real.

    python benchmarks/step_memory.py --models vit-base --batch-size 64
"""

import argparse
from pathlib import Path

from results import write_result
from throughput import THEIRS, make_network, make_step

from maekit.engine.footprint import without_data

NAMES = ("maekit", "maekit cross", "maekit cross 1/4", "plain timm", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit-base"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["bf16", "fp32"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    options.device = "cpu"
    lines = ["No activation is computed twice. Of a CPU's kernels, counted on fake tensors.", ""]
    for model in options.models:
        for precision in options.precisions:
            found = {name: peak(name, model, precision, options) for name in NAMES}
            best = min(found[name] for name in found if name in THEIRS)
            lines += [f"## {model}, {precision}, batch {options.batch_size}", "",
                      "| implementation | peak, GB | against the best peer |", "|---|---|---|"]  # fmt: skip
            lines += [f"| {name} | {found[name] / 1e9:.2f} | {found[name] / best:.2f} |" for name in found]
            lines.append("")
            print("\n".join(lines[-len(found) - 4 :]), flush=True)
    path = write_result("step_memory", "cpu", lines, options.out)
    assert Path(path).exists()


def peak(name: str, model: str, precision: str, options: argparse.Namespace) -> int:
    """Bytes at the peak of a second step, when the moments are there."""
    network = make_network(name, model)
    with without_data() as live:
        step = make_step(name, model, precision, options, network.to_empty(device="cpu"))
        step()
        live.peak = live.now
        step()
        return live.peak


if __name__ == "__main__":
    main()
