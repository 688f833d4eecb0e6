"""Whether training waits for its images: images per second from files, beside those of the same loop on one batch.

    python benchmarks/loop.py --data photos --preset vit-small --workers 1 --steps 12 --rounds 3

Each is `maekit pretrain` in a process of its own, in turn, several rounds. The rate is that of the run's own history,
from the second line on; the first has the start of the workers in it. Beside it the share of time that the run says it
waited for images. In memory means: the first micro-batch that the loader makes, again and again.
"""

import argparse
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

from results import write_result

KINDS = {"from files": False, "in memory": True}


def main() -> None:
    options = _options()
    if options.one:
        train(options, in_memory=options.one == "in memory")
        return
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            line = [sys.executable, __file__, *sys.argv[1:], "--one", kind]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{shlex.join(line)}\n{done.stdout}{done.stderr}")
            found[kind].append(tuple(json.loads(done.stdout.splitlines()[-1])))
            print(kind, found[kind][-1], flush=True)
    still = median(rate for rate, _ in found["in memory"])
    lines = [
        f"{options.rounds} runs of each, {options.steps} steps of {options.batch_size}, beside {options.beside}.",
        "",
        "| images | images/s, median | lowest, highest | of the rate in memory | waiting |",
        "|---|---|---|---|---|",
    ]
    for kind, measured in found.items():
        rates = [rate for rate, _ in measured]
        waiting = mean(share for _, share in measured)
        lines.append(f"| {kind} | {median(rates):.3g} | {min(rates):.3g}, {max(rates):.3g} "
                     f"| {median(rates) / still:.1%} | {waiting:.1%} |")  # fmt: skip
    write_result("loop", "cpu", lines, options.out)


def train(options: argparse.Namespace, *, in_memory: bool) -> None:
    """One run; prints its rate and the share of its time that it waited."""
    import maekit
    from maekit.recipes import training

    if in_memory:
        read = training.train_batches

        def again(*arguments: Any, **named: Any) -> Iterator[Any]:
            micro_batches = (named["total_steps"] - named["start_step"]) * named["batch_size"] // named["micro_batch"]
            first = next(read(*arguments, **named))
            return itertools.repeat(first, micro_batches)

        training.train_batches = again
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        maekit.pretrain(
            options.preset,
            data=options.data,
            steps=options.steps,
            batch_size=options.batch_size,
            workers=0 if in_memory else options.workers,
            device="cpu",
            out=out,
            options={"run.log_every": 1, "run.tensorboard": False},
        )
        history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
    seconds = sum(options.batch_size / line["images_per_second"] for line in history)
    waited = sum(line["waiting"] * options.batch_size / line["images_per_second"] for line in history)
    print(json.dumps([len(history) * options.batch_size / seconds, waited / seconds]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="SOURCE of files on disk")
    parser.add_argument("--preset", default="vit-small")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", default="nothing that is known of", help="what else ran meanwhile")
    parser.add_argument("--out", default="")
    parser.add_argument("--one", choices=list(KINDS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
