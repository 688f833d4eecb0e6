"""Processes of their own that begin at once: forked from a server that has imported all and computed nothing.

`in_processes` runs a function in several that train together over gloo, as torchrun would start them; `Started` is one
that runs `maekit WORDS...`, or a program.
"""

import atexit
import contextlib
import io
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_IMPORTED = [
    "maekit.verbs", "maekit.trainings", "maekit.recipes.pretrain", "maekit.recipes.classify", "maekit.recipes.probe",
    "maekit.inference.embed", "torch.utils.tensorboard", "sklearn.manifold",
]  # fmt: skip
_AS_COMMAND = "from maekit.cli import entry; entry()"


def _forking() -> Any:
    """Its server has computed nothing: autograd refuses to work in forks of who has."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(_IMPORTED)
    return forking


class Said(NamedTuple):
    """What one process gave back (None where it raised), and what it printed, with the traceback of what it raised."""

    value: Any
    out: str
    err: str


def in_two_processes(work: Callable[..., Any], *arguments: Any, patience: float = 240) -> list[Said]:
    """What `work(*arguments)` came to in each of two processes, by rank."""
    return in_processes(2, work, *arguments, patience=patience)


def in_processes(count: int, work: Callable[..., Any], *arguments: Any, patience: float = 240) -> list[Said]:
    """What `work(*arguments)` came to in each process, by rank."""
    forking = _forking()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    answers, processes = forking.Queue(), []
    for rank in range(count):
        process = forking.Process(target=_run, args=(rank, count, port, answers, work, arguments))
        process.start()
        processes.append(process)
    try:
        found_answers = dict(answers.get(timeout=patience) for _ in processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [found_answers[rank] for rank in range(count)]


def _run(rank: int, count: int, port: int, answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    out, err, value = io.StringIO(), io.StringIO(), None
    logging.getLogger("maekit").handlers = []
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            value = work(*arguments)
        except BaseException:
            traceback.print_exc()
    answers.put((rank, Said(value, out.getvalue(), err.getvalue())))
    answers.close()
    answers.join_thread()


def maekit(*words: Any) -> int:
    """`maekit WORDS...` in this process; returns its exit code."""
    from maekit import cli

    return cli.main([str(word) for word in words])


class Started:
    """A process that runs `maekit WORDS...`, or `python -c PROGRAM WORDS...`, in a session of its own."""

    def __init__(self, *words: Any, program: str = _AS_COMMAND, cwd: Path | None = None) -> None:
        self._said = tempfile.TemporaryDirectory()
        for number in (1, 2):
            Path(self._said.name, str(number)).touch()
        arguments = (program, [str(word) for word in words], cwd or Path.cwd(), dict(os.environ), self._said.name)
        self._process = _forking().Process(target=_program, args=arguments)
        self._process.start()
        self.pid = self._process.pid
        atexit.register(self.kill)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("maekit", timeout, self.out, self.err)
        return self.returncode

    @property
    def out(self) -> str:
        """Standard output until now."""
        return Path(self._said.name, "1").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Standard error until now."""
        return Path(self._said.name, "2").read_text(encoding="utf-8")


def _program(program: str, words: list[str], folder: Path, environment: dict[str, str], said: str) -> None:
    os.setsid()
    for number in (1, 2):
        file = os.open(f"{said}/{number}", os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.argv = ["maekit", *words]
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # which forks leave out


def in_its_own(*words: Any, program: str = _AS_COMMAND, cwd: Path | None = None, timeout: float = 120) -> Any:
    """What `subprocess.run` of the same gives back."""
    process = Started(*words, program=program, cwd=cwd)
    process.wait(timeout)
    return subprocess.CompletedProcess(words, process.returncode, process.out, process.err)
