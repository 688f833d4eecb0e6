"""Arrays that processes share: the same memory in each, so that no worker has an index of its own."""

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maekit.data import shared as module
from maekit.data.shared import SharedArray, shared

METHODS = ("fork", "forkserver", "spawn")


def add_one(array: np.ndarray, part: np.ndarray, every_second: np.ndarray) -> None:
    array[0] += 1
    part[0] += 1
    every_second[0] += 1


@pytest.mark.parametrize("method", METHODS)
def test_a_process_is_handed_the_memory_not_a_copy(method: str) -> None:
    array = shared(np.arange(200_000))
    process = multiprocessing.get_context(method).Process(target=add_one, args=(array, array[7:9], array[1000::2]))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert array[[0, 6, 7, 8]].tolist() == [1, 6, 8, 8]
    assert array[1000] == 1000 + (method == "fork")  # what has gaps is copied


def test_what_is_computed_of_them_is_an_array_as_any_other() -> None:
    array = shared(np.arange(200_000))
    assert type(array + 1) is type(np.maximum(array, 3)) is np.ndarray
    assert isinstance(array.sum(), np.int64)
    copy = pickle.loads(pickle.dumps(array))
    copy[0] = 5
    assert array[0] == 0
    assert shared(array) is array
    assert isinstance(shared(array[array > 5]), SharedArray)
    assert module._memory_of(shared(array[array > 5])) is not module._memory_of(array)
    assert type(shared(np.arange(5))) is np.ndarray  # small ones are not worth a file


WORK = r"""
import multiprocessing, re, sys
from functools import partial
from pathlib import Path
from maekit.data.sources import open_source
from maekit.data.sources.subset import SubsetSource
from maekit.data.workers import map_in_order

def own_memory(source, index):
    source.path(index), source.label(index)
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+: *(\d+)", rollup)) * 1024

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for file in sys.argv[2:]:
        source = open_source(file)
        source = SubsetSource(source, __import__("numpy").arange(len(source)))
        print(*map_in_order(partial(own_memory, source), [0, len(source) - 1], 1))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's account of memory")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_has_no_index_of_its_own(method: str, tmp_path: Path) -> None:
    for name, count in (("few.csv", 10), ("many.csv", 1_000_000)):
        (tmp_path / name).write_text("".join(f"{number:020}.png,{number % 7}\n" for number in range(count)))
    (tmp_path / f"{0:020}.png").touch()
    (tmp_path / "work.py").write_text(WORK)
    words = [sys.executable, str(tmp_path / "work.py"), method, str(tmp_path / "few.csv"), str(tmp_path / "many.csv")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many = (max(map(int, line.split())) for line in done.stdout.splitlines())
    index = 1_000_000 * (24 + 3 * 8)  # names, where each ends, labels, numbers of a subset
    assert many - few < index / 4
