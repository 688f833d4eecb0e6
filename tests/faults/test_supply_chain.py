"""What maekit runs is what it was written to run: no code out of files, no network in tests, known dependencies."""

import ast
import re
import socket
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "maekit").rglob("*.py"))

# Modules whose loading runs what a file says, and names that turn text into code.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "torch.jit.load"}
TRUSTED_ONLY_WITH = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False),
                     "numpy.load": ("allow_pickle", False)}  # fmt: skip
NEVER = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}


def dangers(source: str) -> list[str]:
    """Places in a module's text where something in a file could be run."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {name.name}" for name in node.names if name.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [f"from {node.module}"] if (node.module or "").split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            keyword, value = TRUSTED_ONLY_WITH.get(name, ("", None))
            wrong = [word for word, bad in NEVER.items() if given.get(word, not bad) == bad]
            if name in NAMES | CALLS or wrong or (keyword and given.get(keyword) != value):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "import torch.x, marshal", "eval('1')", "exec(text)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "yaml.load(text)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "subprocess.run(words, shell=True)", "os.system('ls')",
        "load_dataset(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_dangers_are_seen(code):
    assert dangers(code)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_nothing_in_a_file_is_ever_run(path):
    allowed = ["import pickle"] if path.name == "pickled.py" else []  # for UnpicklingError, by which torch refuses
    assert dangers(path.read_text()) == allowed


def test_the_one_module_that_names_pickle_uses_its_error_alone():
    (path,) = (path for path in SOURCES if path.name == "pickled.py")
    assert set(re.findall(r"pickle\.(\w+)", path.read_text())) == {"UnpicklingError"}


def test_no_test_reaches_the_network():
    with pytest.raises(RuntimeError, match="socket"), pytest.warns(UserWarning, match="192.0.2.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)


def test_loopback_is_there_for_the_tests_that_serve():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group if not text.startswith("maekit")]


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(number) for name, number in pairs}


@pytest.mark.parametrize("requirement", [r for r in requirements() if not r.name.startswith("types-")], ids=str)
def test_every_dependency_has_a_floor_that_the_tested_versions_pass(requirement):
    assert [part.operator for part in requirement.specifier] == [">="]
    name = canonicalize_name(requirement.name)
    if name in constraints():
        assert constraints()[name] in requirement.specifier
    try:
        assert Version(version(name)) in requirement.specifier
    except PackageNotFoundError:
        pytest.skip("is not installed here")


def test_constraints_name_every_dependency_that_is_always_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {canonicalize_name(Requirement(text).name) for text in project["dependencies"]} <= constraints().keys()
