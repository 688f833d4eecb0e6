"""Result files: what was measured, with the command, the versions and the machine."""

import datetime
import platform
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "pillow", "simplejpeg")


def hardware() -> str:
    """The device and processor in words."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "CPU")
    words = f"{cpu}, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name()}; {words}" if torch.cuda.is_available() else words


def write_result(theme: str, device: str, lines: list[str], out: str = "") -> Path:
    """Write benchmarks/results/THEME_HARDWARE_DATE.md, or `out`."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu{torch.get_num_threads()}"
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = Path(out) if out else FOLDER / f"{theme}_{short}_{datetime.date.today()}.md"
    versions = ", ".join(f"{package} {_version(package)}" for package in _PACKAGES)
    head = [
        f"# {theme.replace('_', ' ')}",
        "",
        f"- hardware: {hardware()}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- date: {datetime.date.today()}",
        f"- command: `python benchmarks/{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*head, *lines]).rstrip() + "\n", encoding="utf-8")
    print(path)
    return path


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "absent"
