"""A model card in the Hugging Face hub's format: what a run folder tells of its weights, and no more."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maekit.config import files
from maekit.config.verbs import CardOptions
from maekit.errors import RunError, UsageError
from maekit.presets.verbs import VERBS
from maekit.report.history import History
from maekit.report.probes import kept, reported
from maekit.report.run import costs, facts, measure, words
from maekit.report.verdict import verdict
from maekit.results import Described
from maekit.sections import Text
from maekit.storage import check_writable, write_text
from maekit.weights import stored

UNKNOWN = "unknown"  # which the hub knows as a licence too
_NOT_RECIPE = ("name", "weights", "data.source", "data.workers", "validation.source", "run.out", "run.resume",
               "run.overwrite", "run.device", "run.keep", "run.tensorboard", "run.parts")  # fmt: skip
_SHOWN = ("preset", "encoder", "patch size", "width", "depth", "decoder", "mask", "hidden share", "target", "loss")
_FEW = 10_000  # images

Probe = tuple[str, Mapping[str, Any]]
"""By which images it was judged, or the file that tells, and what `maekit probe` said: {rows, train_images, ...}."""


def card(options: CardOptions) -> Described:
    """`maekit card`. Raises RunError for a folder without run or weights, UsageError for a file of no probe."""
    history = History.of(Path(options.run))
    if not (history.folder / "model.safetensors").is_file():
        raise RunError(f"{history.folder}: has no model.safetensors yet, so nothing to describe; end the run first")
    if options.out:
        check_writable(Path(options.out))
    probes = [*_kept(history.folder), *((Path(path).name, _probe(Path(path))) for path in options.probe)]
    written = text(history, options.license, probes)
    if options.out:
        write_text(Path(options.out), written)
    said = Text(f"{options.out}: licence {options.license or UNKNOWN}") if options.out else Text(written)
    return Described(out=options.out or None, license=options.license or UNKNOWN, card=written, sections=[said])


def text(history: History, licence: str, probes: Sequence[Probe] = ()) -> str:
    """The card: YAML between dashes, then Markdown. licence: empty where nobody has said it."""
    parts = [f"# {_name(history)}", *_what(history), *_licence(licence), *_data(history), *_recipe(history)]
    parts += [*_cost(history), *_numbers(history, probes), *_limits(history, probes), *_loading(history)]
    return f"---\n{_front(history, licence, probes)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front(history: History, licence: str, probes: Sequence[Probe]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    classifies, started = _classifies(history), history.option("weights") or ""
    tags = ["maekit", "image-classification" if classifies else "masked-autoencoder", "vision"]
    found = [
        EvalResult(
            task_type="image-classification", metric_type="accuracy", metric_name=name, metric_value=round(value, 6),
            dataset_type=re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-") or "images", dataset_name=where,
        )
        for name, where, value in _accuracies(history, probes)
    ]  # fmt: skip
    data = ModelCardData(
        license=licence or UNKNOWN,
        library_name="maekit",
        pipeline_tag="image-classification" if classifies else "image-feature-extraction",
        tags=tags,
        datasets=_repositories(history.option("data.source")),
        base_model=_repositories(started),
        metrics=["accuracy"] if found else None,
        model_name=_name(history) if found else None,
        eval_results=found or None,
    )
    return str(data.to_yaml()).strip()


def _accuracies(history: History, probes: Sequence[Probe]) -> Iterator[tuple[str, str, float]]:
    """(measure, images it was judged by, share that is right)."""
    for key in ("val_knn", "val_top1"):
        if (value := history.last(key)) is not None:
            yield measure(key), _held_out(history), value
    for where, found in probes:
        firsts = {row["kind"]: row["top1"] for row in reversed(reported(found))}
        for kind, top1 in sorted(firsts.items()):
            yield f"{kind} probe, top-1", where, top1


def _what(history: History) -> Iterator[str]:
    model = history.option("model.encoder")
    what = "An image classifier" if _classifies(history) else "A masked autoencoder (arXiv 2111.06377)"
    encoder = f" with the encoder `{model}`" if model else ""
    yield f"{what}{encoder}, trained with maekit. Everything here was read from its run folder."
    said = {name: value for name, value in facts(history).items() if name in _SHOWN}
    if started := history.option("weights"):
        said["started from"] = _public(started)
    yield _table({**said, "parameters": f"{stored.read(history.folder / 'model.safetensors').count():,}"})


def _licence(licence: str) -> Iterator[str]:
    yield "## Licence"
    if licence:
        yield f"{licence}, as said by whoever wrote this card."
    else:
        yield "**Unknown.** Nobody has said on what terms these weights may be used, or the images they learnt from."


def _data(history: History) -> Iterator[str]:
    data = history.said("data")
    said = {
        "training images": f"{data.get('images', 0):,} of {_public(history.option('data.source'))}",
        "classes": data.get("classes") or "none: unlabelled",
        "size as it is seen": words(history.option("model.image_size")),
        "channels": words(history.option("model.channels")),
        "standardised by": words(history.option("data.normalise")),
        "held-out images": _held_out(history),
    }
    left = data.get("passed_over", {}).get("images") if isinstance(data.get("passed_over"), dict) else None
    if left:
        said["not taken"] = ", ".join(f"{count:,} {what}" for what, count in left.items())
    yield "## Data"
    yield _table({name: str(value) for name, value in said.items() if value not in (None, "")})


def _recipe(history: History) -> Iterator[str]:
    name, verb = str(history.option("name")), "pretrain"
    if _classifies(history):
        verb = "finetune" if history.option("weights") else "scratch"
    yield "## Recipe"
    table, ran = VERBS[verb][1] or {}, files.by_path(history.ran["config"])
    if name in table:
        usual = files.by_path(files.to_dict(table[name]()))
        other = [path for path in ran if path not in _NOT_RECIPE and path in usual and ran[path] != usual[path]]
        yield f"Preset `{name}` of `maekit {verb}`" + (", but for:" if other else ", unchanged.")
        if other:
            rows = [f"| `{path}` | {_cell(usual[path])} | {_cell(ran[path])} |" for path in other]
            yield "\n".join(["| option | preset | here |", "|---|---|---|", *rows])
    else:
        yield f"Config `{name}`, which is no preset of this maekit; all of it is in `config.json`."
    yield f"What repeats it, where its images are:\n\n```\nmaekit {verb} config.json --out again\n```"


def _cost(history: History) -> Iterator[str]:
    if not history.steps:
        return
    versions = history.said("versions")
    named = [f"{name} {versions[name]}" for name in ("maekit", "torch", "timm") if name in versions]
    yield "## Cost"
    on = {"hardware": facts(history).get("hardware", ""), "versions": ", ".join(named)}
    yield _table(costs(history) | on)


def _numbers(history: History, probes: Sequence[Probe]) -> Iterator[str]:
    values = {measure(key): history.last(key) for key in history.measures}
    said = {name: f"{value:.4g}" for name, value in values.items() if value is not None}
    if said or probes:
        yield "## Numbers"
    if said:
        yield f"The last validation, on {_held_out(history)}:"
        yield _table(said)
        yield "\n".join(f"- {line}" for line in verdict(history))
    for where, found in probes:
        rows = [
            f"| {_cell(row['kind'])} | {row.get('features', '')} | {row.get('blocks', '')} | {row['top1']:.4f} |"
            for row in reported(found)
        ]
        learnt, judged = found.get("train_images", "some"), found.get("val_images", "some")
        yield f"Frozen features, by `maekit probe` ({_cell(where)}): learnt from {learnt} images, judged on {judged}."
        yield "\n".join(["| probe | features | last blocks | top-1 |", "|---|---|---|---:|", *rows])


def _limits(history: History, probes: Sequence[Probe]) -> Iterator[str]:
    images, planned = history.said("data").get("images"), history.computed("steps")
    said = ["It has been tried on the images named above, and on no others that this card knows of."]
    if not history.measures and not probes:
        said.append("It was judged by no held-out images: nothing here tells how good its features are.")
    elif not probes and not any(key.startswith(("val_knn", "val_top")) for key in history.measures):
        said.append("No number here rests on labels: how well its features tell classes apart has not been measured.")
    if isinstance(images, int) and images < _FEW and not history.option("weights"):
        said.append(
            f"{images:,} images are few to start from nothing: what they do not show, the encoder has never seen, and "
            "weights of a model that learnt from millions are likely the better start for other images."
        )
    if isinstance(planned, int) and history.steps < planned:
        said.append(f"Its run ended at step {history.steps:,} of the {planned:,} that were planned.")
    if not _classifies(history):
        said.append("Its decoder paints what is likely, blurred where much is, and not what was there.")
    yield "## Limits"
    yield "\n".join(f"- {line}" for line in said)


def _loading(history: History) -> Iterator[str]:
    name = _name(history)
    uses = "logits = model(model.standardise(images))" if _classifies(history) else "features = model.features(images)"
    code = f'import maekit\n\nmodel = maekit.load("{name}").eval()  # the run folder, or its model.safetensors'
    yield "## How to load it"
    yield f"```python\n{code}\n{uses}  # images: [N, C, H, W] in [0, 1]\n```"
    yield f"For timm, without maekit: `maekit convert {name} --to timm --out {name}-timm`."


def _kept(run: Path) -> list[Probe]:
    """What probes said of the run's weights, as its folder keeps it; the newest of each pair of sources."""
    found: dict[tuple[Any, ...], Probe] = {}
    for record in kept(run):
        if record["weights"] == "model.safetensors":
            few = record.get("per_class")
            where = _public(record["val"]) + ("" if few is None else f", from {few} labels a class")
            found[record["val"], record["data"], few] = where, record
    return [*found.values()]


def _probe(path: Path) -> Mapping[str, Any]:
    """What `maekit probe --json` has printed. Raises UsageError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
        if all(isinstance(row["top1"], float) and isinstance(row["kind"], str) for row in found["rows"]):
            return dict(found)
    except OSError as error:
        raise UsageError(f"--probe {path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError):
        pass
    raise UsageError(
        f"--probe {path}: is no answer of `maekit probe --json`; write that to a file: ... --json > {path}"
    )


def _name(history: History) -> str:
    return history.folder.resolve().name


def _classifies(history: History) -> bool:
    return "classifier" in history.ran["config"]


def _public(source: Any) -> str:
    """A SOURCE without the folders above it, which are of one machine alone."""
    text = str(source or "")
    return text if ":" in text else Path(text.rstrip("/")).name


def _held_out(history: History) -> str:
    if share := history.option("validation.split"):
        return f"{share:.3g} of {_public(history.option('data.source'))}, held out"
    return _public(history.option("validation.source"))


def _repositories(source: Any) -> list[str] | None:
    """The hub's repository that a SOURCE or W names, if it does."""
    found = re.match(r"hf:(?://datasets/)?([\w.-]+/[\w.-]+)", str(source or ""))
    return [found[1]] if found else None


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    """A value as one cell of a table, which text of a file's name could break."""
    words = "none" if value is None else " ".join(str(value).split())
    return re.sub(r"([|<>])", r"\\\1", words)
