"""One tiny run under many faults, and the comparison with the run that nothing happened to."""

import os
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import damage
from forked_command import Command

from maekit import storage
from maekit.engine import metrics
from maekit.errors import StorageError

STEPS = 120
KILL, TERM, FULL, TORN = "kill -9", "SIGTERM", "disk full (RLIMIT_FSIZE)", "last line of the history torn"
VANISHED, CORRUPTED = "image vanished", "image corrupted"
KINDS = (KILL, TERM, FULL, *damage.CHECKPOINT_DAMAGES, TORN, VANISHED, CORRUPTED)

_EARLY = 0.12  # share of the faults that come anywhere in the start, before the first new step
_DAMAGED = 0.6  # share of the restarts before which something on the disk is damaged
_FURTHEST = 18  # steps from a start to its fault, at most
_COMPARED = ("model.safetensors", "model_ema.safetensors", "best.safetensors")
_STARTED = re.compile(r"going on from step (\d+)|starting from step (0)")


@dataclass
class Tally:
    """What was done to the runs of one recipe, and what became of them."""

    faults: Counter[str] = field(default_factory=Counter)
    stories: int = 0
    starts: int = 0
    resumes: int = 0
    lost: list[int] = field(default_factory=list)
    """Steps done again, by resume."""
    losses_compared: int = 0
    identical: int = 0
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept, in words."""


class Story:
    """A run of `words`, to which the kinds of faults in `kinds` happen until it is complete.

    words: a training command without --data, --out and --resume. images: a list file and its images, copied, since some
    of them will not survive. reference: the folder of the same run without faults.
    """

    def __init__(
        self, words: Sequence[object], images: Path, reference: Path, folder: Path, kinds: Sequence[str], draw: Random
    ) -> None:
        self.folder, self.reference, self.kinds, self.draw = folder, reference, kinds, draw
        shutil.copytree(images.parent, folder / "images")
        self.images, self.run = folder / "images" / images.name, folder / "run"
        self.words = [*words, "--data", self.images, "--out", self.run, "--resume"]
        self.history, self.checkpoints = self.run / "metrics.jsonl", self.run / "checkpoints"
        self.tally = Tally(stories=1)
        self._commands: list[Command] = []
        self._hurt: str | None = None  # the damaged checkpoint that no start has met yet
        self._floor = 0  # the step from which on the images are damaged
        self._after: Path | None = None  # the uninterrupted rest of the run over damaged images
        self._images_at = draw.randrange(STEPS // 3, STEPS * 3 // 4) if {VANISHED, CORRUPTED} & set(kinds) else STEPS

    def tell(self, deadline: float) -> Tally:
        """The whole story; after the deadline (of time.monotonic) nothing more happens to it."""
        try:
            while not self._attempt(quiet=time.monotonic() > deadline):
                pass
            self._compare()
        except (AssertionError, TimeoutError) as error:
            self.tally.broken.append(f"{self.folder}: {error}")
        self._count_processes()
        return self.tally

    def _attempt(self, *, quiet: bool) -> bool:
        """One start and what ends it; whether the run is complete."""
        if not quiet:
            self._damage_at_rest()
        before = self._last_step()
        command = self._start(self.words)
        if quiet:
            command.wait()
        else:
            self._live(command)
        self._account(command, before)
        return command.code == 0

    def _start(self, words: Sequence[object]) -> Command:
        self.tally.starts += 1
        self._commands.append(Command(words))
        return self._commands[-1]

    def _damage_at_rest(self) -> None:
        """To the newest checkpoint, where another is left to go on from, or to the history."""
        kinds = [kind for kind in damage.CHECKPOINT_DAMAGES if kind in self.kinds]
        steps = [step for step in self._steps() if step >= self._floor]
        if kinds and self._hurt is None and len(steps) > 1 and self.draw.random() < _DAMAGED:
            kind = self.draw.choice(kinds)
            damage.CHECKPOINT_DAMAGES[kind](self.checkpoints / f"step-{max(steps)}", self.draw)
            self.tally.faults[kind] += 1
            self._hurt = f"step-{max(steps)}"
        if TORN in self.kinds and self.history.exists() and self.draw.random() < _DAMAGED / 3:
            damage.tear(self.history)
            self.tally.faults[TORN] += 1

    def _live(self, command: Command) -> None:
        """A fault at a random moment of a running command; none where it ends before."""
        if self._after is None and self._last_step() >= self._images_at and len(self._steps()) > 1:
            if self._moment(command, early=False):
                self._damage_images(command)
            return
        kind = self.draw.choice([kind for kind in (KILL, TERM, FULL) if kind in self.kinds] or [KILL])
        if not self._moment(command, early=self.draw.random() < _EARLY):
            return
        {KILL: self._kill, TERM: self._terminate, FULL: self._fill_disk}[kind](command)

    def _moment(self, command: Command, *, early: bool) -> bool:
        """Wait for a random moment: anywhere in the start, or some steps after it. False: it ended before."""
        if not early:
            if not command.wait(lambda: _STARTED.search(command.said) is not None):
                return False
            start = _start_step(command.said)
            target = start + self.draw.randint(1, _FURTHEST)
            if not command.wait(lambda: self._last_step() <= start):
                return False
            if not command.wait(lambda: self._last_step() >= target):
                return False
        end = time.monotonic() + self.draw.uniform(0, 0.8 if early else 0.04)
        return command.wait(lambda: time.monotonic() >= end)

    def _kill(self, command: Command) -> None:
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        self.tally.faults[KILL] += command.code == -signal.SIGKILL

    def _terminate(self, command: Command) -> None:
        if _STARTED.search(command.said) is None:  # before training a signal only ends the process
            command.wait(lambda: _STARTED.search(command.said) is not None)
            command.wait(lambda: self.history.exists())
        os.kill(command.pid, signal.SIGTERM)
        command.wait()
        if command.code == 0:
            return
        self.tally.faults[TERM] += 1
        if command.code == -signal.SIGTERM:  # it came in the moment between restoring and the first step
            return
        saved = re.search(r"maekit: stopped by SIGTERM after saving step (\d+)\n$", command.said)
        assert command.code == 75, f"SIGTERM ended it with {command.code}: {_last_line(command.said)}"
        assert saved, f"SIGTERM, and its last line is {_last_line(command.said)}"
        storage.read_facts(self.checkpoints / f"step-{saved[1]}")

    def _fill_disk(self, command: Command) -> None:
        size = self.draw.randrange(20_000)
        sound = self._sound_steps()
        resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (size, size))
        command.wait()
        if command.code == 0:
            return
        self.tally.faults[FULL] += 1
        assert command.code == 1, f"a full disk ended it with {command.code}: {command.said[-3000:]}"
        # The limit also holds for the workers it comes before, and for the shared memory they send images through.
        named = re.search("cannot be written|shared memory", _last_line(command.said))
        assert named, f"a full disk: {command.said[-3000:]}"
        assert not sound or max(sound) in self._sound_steps(), "a full disk took a checkpoint"
        assert not list(self.run.rglob("*.part")), "a full disk left a partial file"

    def _damage_images(self, command: Command) -> None:
        """Two images, while the run reads them; then the same rest of the run without any more faults."""
        at = self._last_step()
        chosen = self.draw.sample(sorted(path for path in self.images.parent.iterdir() if path != self.images), 2)
        happens: dict[str, Callable[[Path], None]] = {VANISHED: Path.unlink, CORRUPTED: damage.corrupt}
        for kind, image in zip(happens, chosen, strict=True):
            if kind in self.kinds:
                happens[kind](image)
                self.tally.faults[kind] += 1
        command.wait(lambda: self._last_step() >= min(at + 10, STEPS))
        self._kill(command)
        if command.code == 0:
            return
        self._same_history(self.reference, range(1, at + 1))
        self._floor = max(self._sound_steps())
        if VANISHED in self.kinds:
            refused = self._start(self.words)
            refused.wait()
            assert refused.code == 1, f"other images, and the run went on: {refused.said[-1000:]}"
            assert "the images (" in _last_line(refused.said), _last_line(refused.said)
        self.words += ["--allow-drift"]
        self._after = self.folder / "after"
        shutil.copytree(self.run, self._after)
        rest = self._start([self._after if word == self.run else word for word in self.words])
        rest.wait()
        assert rest.code == 0, f"with damaged images it failed: {rest.said[-2000:]}"

    def _account(self, command: Command, before: int) -> None:
        """What a start found, and what it cost."""
        killed = command.code == -signal.SIGKILL  # its workers may complain of that
        assert killed or "Traceback" not in command.said, command.said[-3000:]
        if self._hurt is not None and f"set aside as broken-{self._hurt}" in command.said:
            self._hurt = None
        if _STARTED.search(command.said) is None:
            return
        assert self._hurt is None, f"{self._hurt} was damaged, and that went unnoticed"
        if before:
            self.tally.resumes += 1
            self.tally.lost.append(max(0, before - _start_step(command.said)))

    def _compare(self) -> None:
        """With the run that had no faults: every loss by its bits, every file of weights by its bytes."""
        whole = self._after or self.reference
        self._same_history(whole, range(self._floor + 1, STEPS + 1))
        for name in _COMPARED:
            if (whole / name).exists():
                assert (whole / name).read_bytes() == (self.run / name).read_bytes(), f"{name} differs"
        assert not (self.run / "lock").exists(), "the lock is still there"
        self.tally.identical += 1
        shutil.rmtree(self.folder)

    def _same_history(self, whole: Path, steps: range) -> None:
        histories = []
        for path in (whole / "metrics.jsonl", self.history):
            records = [record for record in metrics.read(path) if record["step"] in steps]
            histories.append([(r["step"], r["loss"].hex(), r["gradient_norm"].hex()) for r in records])
        assert len(histories[0]) == len(steps), f"{whole} has {len(histories[0])} of the steps {steps}"
        self.tally.losses_compared += len(steps)
        first = next((a for a, b in zip(*histories, strict=False) if a != b), None)
        assert histories[0] == histories[1], f"the losses part at {first or 'the end'}"

    def _count_processes(self) -> None:
        """Every worker ends with its run, however that ended."""
        end = time.monotonic() + 5
        while (left := sum(command.processes_left() for command in self._commands)) and time.monotonic() < end:
            time.sleep(0.1)
        if left:
            self.tally.broken.append(f"{self.folder}: {left} processes outlived their run")

    def _last_step(self) -> int:
        return int(metrics.last(self.history).get("step", 0))

    def _steps(self) -> list[int]:
        if not self.checkpoints.is_dir():
            return []
        return [int(path.name[5:]) for path in self.checkpoints.iterdir() if re.fullmatch(r"step-\d+", path.name)]

    def _sound_steps(self) -> set[int]:
        sound = set()
        for step in self._steps():
            try:
                sound.add(int(storage.read_facts(self.checkpoints / f"step-{step}")["step"]))
            except StorageError:
                continue
        return sound


def _start_step(said: str) -> int:
    found = _STARTED.search(said)
    assert found is not None
    return int(found[1] or found[2])


def _last_line(said: str) -> str:
    return (said.splitlines() or [""])[-1]
