"""Faults thrown at tiny training runs with two workers, and whether they stayed the runs they would have been.

Pretraining, and fine-tuning with Mixup, CutMix, EMA and drop path, in turn. A story is one run to which faults happen
at random moments until it is complete; then its losses and weights are compared, bit by bit, with those of the same run
without faults. Two images go bad in the middle of a story: from there on the comparison is with an uninterrupted rest
of that run over the same damaged images. Runs are forked from this process, so that a start costs no imports.
Afterwards every format maekit reads is mutated (`tests/mutations.py`).

    OMP_NUM_THREADS=1 python benchmarks/faults.py --minutes 15 --seed 0
    OMP_NUM_THREADS=1 python benchmarks/faults.py --minutes 2 --only "kill -9" --mutations 0
"""

import argparse
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from statistics import mean
from typing import NoReturn

import damage
import forked_command
from fault_story import KINDS, STEPS, Story, Tally
from results import write_result

from maekit.data.decode import MAX_PIXELS

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # what tests and campaign share stands there
import tiny
from mutations import FORMATS, Format, mutated
from mutations import KINDS as EDITS

_IMAGES = 24
_GROWTH = 4 * MAX_PIXELS / 1e6  # MB that a mutated file may take: what the largest image that is decoded takes
_RUN = (
    "--steps", STEPS, "--batch-size", "8", "--micro-batch-size", "4", "--lr", "1e-3", "--workers", "2",
    "--checkpoint-every", "5", "--keep", "3", "--run.log-every", "1", "--run.ema", "0.9", "--device", "cpu",
    "--precision", "fp32",
)  # fmt: skip


def main() -> int:
    options = _options()
    forked_command.import_everything()
    root, draw = Path(tempfile.mkdtemp(prefix="maekit-faults-", dir=options.folder)), Random(options.seed)
    lines, broken = _stories(options, root, draw)
    if options.mutations:
        rows, failures = _mutations(root, options.mutations, draw)
        lines, broken = [*lines, *rows], broken + failures
    write_result("faults", "cpu", lines, options.out)
    print("\n".join([*lines, *broken]))
    if not broken:
        shutil.rmtree(root)
    return int(bool(broken))


def _stories(options: argparse.Namespace, root: Path, draw: Random) -> tuple[list[str], list[str]]:
    """Runs and their faults until the time is over: the tables, and every promise that was broken."""
    images = damage.draw_images(root / "images", _IMAGES)
    validation = damage.draw_images(root / "validation", _IMAGES)
    references = {name: root / f"{name} without faults" for name in ("pretraining", "fine-tuning")}
    words = {
        "pretraining": ("pretrain", "vit-tiny", *tiny.SIZES, *_RUN),
        "fine-tuning": (
            "finetune", "vit-base", "--weights", references["pretraining"], "--val", validation, "--val-every", STEPS,
            "--classifier.drop-path", "0.2", *_RUN,
        ),
    }  # fmt: skip
    for name, reference in references.items():
        _complete((*words[name], "--data", images, "--out", reference))
    tallies = {name: Tally() for name in words}
    shared_memory, began = _shared_memory(), time.monotonic()
    deadline = began + 60 * options.minutes
    for number, name in enumerate(itertools.cycle(words)):
        if time.monotonic() > deadline:
            break
        folder = root / f"story {number}"
        story = Story(words[name], images, references[name], folder, options.only, Random(draw.getrandbits(64)))
        _add(tallies[name], story.tell(deadline))
        print(f"{number + 1} stories, {sum(t.faults.total() for t in tallies.values())} faults", flush=True)
    lines = _campaign(tallies, (time.monotonic() - began) / 60, options.seed)
    left = _shared_memory() - shared_memory
    size = sum(path.stat().st_size for path in left)
    lines += [
        "",
        f"Files left in /dev/shm: {len(left)}, of {size} bytes. (torch leaves an empty one where the limit that",
    ]
    lines += ["stands for a full disk holds for a worker too.)"]
    return lines, [line for tally in tallies.values() for line in tally.broken]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="of faults; references and mutations come beside")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule of faults")
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)}"
    )
    parser.add_argument("--mutations", type=int, default=2000, help="of each format")
    parser.add_argument("--folder", default=None, help="where runs go; the system's temporary folder")
    parser.add_argument("--out", default="", help="result file; benchmarks/results/faults_...")
    return parser.parse_args()


def _complete(words: tuple[object, ...]) -> None:
    command = forked_command.Command(words)
    command.wait()
    if command.code != 0:
        raise SystemExit(f"the run without faults failed:\n{command.said}")


def _add(total: Tally, told: Tally) -> None:
    total.faults += told.faults
    total.lost += told.lost
    total.broken += told.broken
    for name in ("stories", "starts", "resumes", "losses_compared", "identical"):
        setattr(total, name, getattr(total, name) + getattr(told, name))


def _campaign(tallies: dict[str, Tally], minutes: float, seed: int) -> list[str]:
    """The tables: faults by kind, and what became of the runs."""
    names = list(tallies)
    lines = [f"{minutes:.1f} minutes, seed {seed}; each run {STEPS} steps with two workers.", ""]
    lines += [f"| faults injected | {' | '.join(names)} | together |", "|---|" + "---:|" * (len(names) + 1)]
    for kind in KINDS:
        counts = [tally.faults[kind] for tally in tallies.values()]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} | {sum(counts)} |")
    totals = [tally.faults.total() for tally in tallies.values()]
    lines += [f"| all | {' | '.join(map(str, totals))} | {sum(totals)} |", ""]
    lines += [f"| what became of them | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    rows = {
        "runs": lambda t: t.stories,
        "process starts": lambda t: t.starts,
        "resumes": lambda t: t.resumes,
        "steps done again, mean and most of a resume": lambda t: f"{mean(t.lost or [0]):.1f}, {max(t.lost or [0])}",
        "losses compared with the run without faults": lambda t: t.losses_compared,
        "runs with the same losses and weights, bit by bit": lambda t: f"{t.identical} of {t.stories}",
        "promises broken": lambda t: len(t.broken),
    }
    for words, value in rows.items():
        lines.append(f"| {words} | {' | '.join(str(value(tally)) for tally in tallies.values())} |")
    return lines


def _mutations(root: Path, count: int, draw: Random) -> tuple[list[str], list[str]]:
    """A table row a format, each in a process of its own; and what came through that should not."""
    lines = [
        "",
        f"{count:,} mutated files of each format; none may end otherwise than read or refused in one line.",
        "",
    ]
    lines += ["| format | read | refused | slowest, ms | growth of memory, MB |", "|---|---:|---:|---:|---:|"]
    failures = []
    for form in FORMATS.values():
        seed, path = draw.getrandbits(64), root / f"{form.name}.answer"
        pid = os.fork()
        if pid == 0:
            _mutate(form, root / "mutations" / form.name, count, Random(seed), path)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            failures.append(f"{form.name}, seed {seed}: ended by {code}: {path.read_text() if path.exists() else ''}")
        lines.append(f"| {form.name} | {path.read_text() if code == 0 else f'failed with {code}'} |")
    return lines, failures


def _mutate(form: Format, folder: Path, count: int, draw: Random, answer: Path) -> NoReturn:
    """In a forked process: read mutated files, write the row's values, and leave."""
    code = 1
    try:
        warnings.simplefilter("ignore")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where C libraries complain
        folder.mkdir(parents=True)
        data, path = form.make(folder), folder / form.name
        form.survives(path, data)
        before, taken, slowest = _peak(), 0, 0.0
        for _ in range(count):
            edits = [
                (draw.choice(EDITS), draw.random(), draw.randbytes(draw.randint(1, 40)))
                for _ in range(draw.randint(1, 4))
            ]
            signal.alarm(20)  # a hang ends the process
            began = time.perf_counter()
            taken += form.survives(path, mutated(data, edits))
            slowest = max(slowest, time.perf_counter() - began)
        growth = (_peak() - before) / 1024
        answer.write_text(f"{taken} | {count - taken} | {slowest * 1000:.0f} | {growth:.0f}")
        code = 0 if growth < _GROWTH else 3
    except BaseException:
        answer.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _peak() -> int:
    """Resident memory at its peak, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _shared_memory() -> set[Path]:
    return set(Path("/dev/shm").glob("torch_*"))


if __name__ == "__main__":
    sys.exit(main())
