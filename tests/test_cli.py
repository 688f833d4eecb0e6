"""The command line as a person meets it: help, mistakes, exit codes."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

from maekit import cli, presets
from maekit.config import ClassifyConfig, PretrainConfig, ProbeOptions, files, verbs
from maekit.config import help as short_help
from maekit.config.files import group_of
from maekit.results import Run


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_verb(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["none", "count", "policy"],
)
def test_threads_spin_for_a_short_time_unless_the_user_says_how_long(capsys, monkeypatch, own, expected):
    monkeypatch.setattr(cli.os, "environ", {"PATH": "", **own})
    run(capsys, "--version")
    assert cli.os.environ.get("GOMP_SPINCOUNT") == expected


def test_help_imports_no_torch():
    script = "import sys; from maekit import cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_config_mistakes_are_found_before_torch_is_imported():
    script = (
        "import sys; from maekit import cli; code = cli.main(['pretrain', 'vit-tiny', '--mask-ration', '0.5']);"
        "sys.exit(10 + code if 'torch' not in sys.modules else 1)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 12


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretain"], "did you mean pretrain?"),
        (["pretrain", "vit-bas", "--data", "x"], "did you mean vit-base?"),
        (["pretrain", "vit-tiny", "--mask-ration", "0.5", "--data", "x"], "did you mean --mask-ratio?"),
        (["pretrain", "vit-tiny", "--model.decoder.dept", "3", "--data", "x"], "did you mean --model.decoder.depth?"),
        (["pretrain", "vit-tiny", "--data", "x", "--epochs", "abc"], "--epochs"),
        (["pretrain", "vit-tiny", "--data", "x", "--mask-ratio", "1.5"], "mask.ratio: should be less than 1, got 1.5"),
        (["pretrain", "vit-tiny", "--data", "x", "--steps", "-3"], "schedule.steps"),
        (["pretrain", "vit-tiny", "--data", "x", "--model.decoder.kind", "crss"], "no such choice 'crss'"),
        (["pretrain", "vit-tiny", "--data", "x", "y"], "'y' stands where no value belongs"),
        (["pretrain", "vit-tiny"], "--data is missing"),
        (["pretrain", "--data", "x"], "the preset comes first"),
        (["reconstruct", "a.png", "--weights", "w"], "--out is missing"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(capsys, words, expected):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert expected in err


def _fields(kind, prefix=""):
    for field in dataclasses.fields(kind):
        yield kind, field, prefix + field.name
        inner = group_of(field.type)
        if inner is not None:
            yield from _fields(inner, f"{prefix}{field.name}.")


CONFIGS = [PretrainConfig, ClassifyConfig, ProbeOptions] + [
    kind for _, kind in inspect.getmembers(verbs, dataclasses.is_dataclass) if kind.__module__ == verbs.__name__
]


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_option_is_documented(kind):
    for owner, field, path in _fields(kind):
        owner = next(base for base in owner.__mro__ if field.name in inspect.get_annotations(base))
        assert len(short_help._docstrings(owner.__module__, owner.__name__)[field.name]) > 2, f"{path} has no help"


@pytest.mark.parametrize("name", presets.PRETRAIN)
def test_presets_survive_a_file_unchanged(name, tmp_path):
    preset = presets.PRETRAIN[name]()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": files.to_dict(preset), "versions": {}}))
    assert files.read(PretrainConfig, path) == preset
    assert preset.name == name
    documentation = presets.PRETRAIN[name].__doc__
    assert "Measured" in documentation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nmask: {rato: 0.5}", "mask.rato: no such option (did you mean mask.ratio?)"),
        ("[1, 2]", "holds list"),
        ("a: [", "is not valid"),
        ("name: x", "is missing"),
    ],
)
def test_config_files_explain_what_is_wrong(capsys, tmp_path, text, expected):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    code, _, err = run(capsys, "pretrain", path, "--data", "x")
    assert code == 2
    assert err.count("\n") == 1
    assert str(path) in err
    assert expected in err


def test_json_holds_no_number_that_json_does_not_know(monkeypatch, capsys):
    answer = Run(run="r", steps=1, record={"loss": float("inf"), "rows": [(1.0, float("-inf")), {"a": float("nan")}]})
    monkeypatch.setitem(cli.VERBS, "inspect", lambda **_: answer)
    assert cli.main(["inspect", "w", "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert said == {"run": "r", "steps": 1, "loss": None, "rows": [[1.0, None], {"a": None}]}


def test_the_package_is_a_command_too():
    done = subprocess.run([sys.executable, "-m", "maekit", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("maekit ")
