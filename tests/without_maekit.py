"""Programs that run where maekit cannot be imported, as at somebody's who has its exports alone."""

import subprocess
import sys
import tempfile
from pathlib import Path

_PRELUDE = """
import sys

class Absent:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "maekit":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""


def run_without_maekit(program: str, *arguments: Path | str) -> str:
    """What a Python program prints, in a process and a folder of its own."""
    words = [sys.executable, "-c", _PRELUDE + program, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
