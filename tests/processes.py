"""Runs a function in processes that train together over gloo, as torchrun would start them, in a second."""

import contextlib
import io
import logging
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple


class Said(NamedTuple):
    """What one process gave back (None where it raised), and what it printed, with the traceback of what it raised."""

    value: Any
    out: str
    err: str


def in_two_processes(work: Callable[..., Any], *arguments: Any, patience: float = 60) -> list[Said]:
    """What `work(*arguments)` came to in each of two processes, by rank."""
    return in_processes(2, work, *arguments, patience=patience)


def in_processes(count: int, work: Callable[..., Any], *arguments: Any, patience: float = 60) -> list[Said]:
    """What `work(*arguments)` came to in each process, by rank."""
    # A server that has imported all and computed nothing: autograd refuses to work in forks of who has.
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["maekit.recipes.pretrain", "maekit.recipes.classify", "maekit.recipes.probe"])
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
