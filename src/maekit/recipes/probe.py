"""How good an encoder's features are as they stand: nearest neighbours, a linear layer, attentive queries.

Legend: N images, D feature width.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from maekit import parts
from maekit.config import ProbeConfig, ProbeOptions, RunConfig
from maekit.config.objects import Given
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.data.sources.labelled import labelled_pair
from maekit.data.sources.subset import few_per_class
from maekit.engine import logistic
from maekit.engine.distributed import World
from maekit.engine.evaluate import collapse, knn_predict_each, rankme
from maekit.engine.precision import Precision
from maekit.errors import DataError, ModelError, UsageError
from maekit.inference.features import Features, joined, stream
from maekit.inference.one_pass import counted, crop_share_of
from maekit.models.encoder import ImageEncoder, eval_mode
from maekit.models.probe_heads import queries_within
from maekit.recipes.execution import join_world
from maekit.recipes.probe_training import Choice, Trial, train_attending, train_linear
from maekit.report import probes
from maekit.results import Probed
from maekit.sections import Table
from maekit.weights.find import find
from maekit.weights.hub import is_repository
from maekit.weights.load import load

log = logging.getLogger("maekit")

_NEIGHBOURS = (10, 20, 100, 200)  # DINOv2's (arXiv 2304.07193)
_REPORTED_NEIGHBOURS = 20
_WEIGHT_DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_USUAL_WEIGHT_DECAY = 1e-2  # where no image can be held out to choose one
_SWEPT_BLOCKS = (1, 2, 4)
_ATTENDING = ("attentive", "efficient")

Row = dict[str, Any]


def run(options: ProbeOptions) -> Probed:
    """`maekit probe`: what `judge` returns; of a run's weights, kept in its folder and shown in its report."""
    with join_world(RunConfig(device=options.device, seed=options.seed)) as world:
        train, val = world.patiently(lambda: _opened(options))
        model = load(options.weights, options, decoder=False).to(world.device)
        answer = judge(model, train, val, options, world)
        if world.is_first and "rankme" in answer and (warning := collapse(answer["rankme"], answer["val_images"])):
            log.warning("%s", warning)
        if world.is_first:
            _keep(options, answer)
        by_kind = {kind: answer.pop(kind) for kind in dict.fromkeys(row["kind"] for row in answer["rows"])}
        return Probed(probes=by_kind, **answer, sections=[table(answer["rows"])])


def _keep(options: ProbeOptions, answer: Mapping[str, Any]) -> None:
    """With the run whose weights they are, if they are a file's here."""
    if isinstance(options.weights, Given) or is_repository(options.weights):
        return
    held_out = str(options.val) or f"a held-out {options.val_split:.3g} of them"
    asked = {"data": str(options.data), "val": held_out, "per_class": options.per_class}
    probes.keep(find(options.weights), asked | {name: answer[name] for name in ("rows", "train_images", "val_images")})


def _opened(options: ProbeOptions) -> tuple[Source, Source]:
    space = Space.within(options.cache_limit)
    train = open_source(options.data, options.image_column, space)
    if options.val_split is not None:
        return hold_out(train, options.val_split, options.seed)
    val = open_source(options.val, options.image_column, space)
    say_shared(train, val)
    return train, val


def judge(
    model: ImageEncoder, train: Source, val: Source, config: ProbeConfig, world: World | None = None
) -> dict[str, Any]:
    """Judge a frozen encoder, on the device where it is.

    The model's weights, its training flags and what needs a gradient are the same afterwards. world: the processes that
    share the work; None: this one alone.

    Returns each kind's first row as `knn`, `linear`, `attentive`, `efficient` ({top1, features, blocks, ...}; knn also
    by_k: top-1 by number of neighbours), and `rows`, one for each kind, choice of features and number of neighbours;
    train_images, val_images, crop_share (of the centre crop they were seen in); with kNN or the fast linear probe
    rankme, of the first choice's features of `val`. The first row is that of the first choice, never of the best.
    Raises DataError for sources that cannot be compared, or too few images; ModelError where the encoder has not the
    features asked for.
    """
    train, val = labelled_pair(train, val)
    if config.per_class is not None:
        train = few_per_class(train, config.per_class, config.seed)
    if "knn" in config.kinds and (largest := max(config.neighbours, default=0)) > len(train):
        raise DataError(f"--neighbours {largest}: there are {len(train)} training images; take {len(train)} at most")
    world = world or World(device=model.device)
    with eval_mode(model):
        trial = Trial(model, train, val, config, world)
        choices = _choices(model, config)
        rows, rank = _fixed_rows(trial, choices)
        if "linear" in config.kinds and config.linear == "paper":
            found = train_linear(trial, _paper_choices(model, config, choices))
            rows += [_row("linear", choice, top1, probe="paper") for choice, top1 in found.items()]
        rows += _attending_rows(trial, choices, rows)
    return {
        **_summary(rows),
        "rows": rows,
        **rank,
        "train_images": len(train),
        "val_images": len(val),
        "crop_share": crop_share_of(model, config.crop_share),
    }


def probe_features(
    train: Features, val: Features, classes: int, config: ProbeConfig | None = None, device: torch.device | None = None
) -> dict[str, Row]:
    """kNN and the linear probe at its optimum, on features [N, D] computed before.

    Returns those of {knn: {top1, k, by_k}, linear: {top1, weight_decay}} that the config names. The linear probe
    standardises by the training features, chooses the weight decay on a fifth of them, and is fitted anew on all;
    `val` is looked at once, at the end. device: where the work is done; None: where the features are.
    """
    config = config or ProbeConfig()
    device = device or train.vectors.device
    vectors, labels = train.vectors.to(device), train.labels.to(device)
    judged, truth = val.vectors.to(device), val.labels.to(device)
    found: dict[str, Row] = {}
    if "knn" in config.kinds:
        usual = tuple(k for k in _NEIGHBOURS if k <= len(vectors)) or (len(vectors),)
        ks = tuple(dict.fromkeys(config.neighbours)) or usual
        predicted = knn_predict_each(vectors, labels, judged, ks=ks, temperature=config.temperature, classes=classes)
        by_k = {k: _share(guess == truth) for k, guess in predicted.items()}
        reported = _REPORTED_NEIGHBOURS if _REPORTED_NEIGHBOURS in by_k else ks[0]
        found["knn"] = {"top1": by_k[reported], "k": reported, "by_k": by_k}
    if "linear" in config.kinds:
        scale = logistic.Standardisation.of(vectors)
        vectors, judged = scale(vectors), scale(judged)
        weight_decay = logistic.choose_weight_decay(
            vectors, labels, classes=classes, grid=_WEIGHT_DECAYS, seed=config.seed
        )
        if weight_decay is None:
            log.info("linear: one image a class leaves none to choose by: weight decay %g", _USUAL_WEIGHT_DECAY)
            weight_decay = _USUAL_WEIGHT_DECAY
        fitted = logistic.fit(vectors, labels, classes=classes, weight_decay=weight_decay)
        found["linear"] = {"top1": _share(fitted.predict(judged) == truth), "weight_decay": weight_decay}
    for kind in config.kinds:
        if kind not in ("knn", "linear", *_ATTENDING):
            found[kind] = {"top1": _by_own(kind, train, val, classes)}
    return found


def _by_own(own: str, train: Features, val: Features, classes: int) -> float:
    """Top-1 of a probe of the user's."""
    parts.say(own)
    probe = parts.find("probe", own).bound()
    try:
        predicted = torch.as_tensor(probe(train.vectors, train.labels, val.vectors, classes))
    except Exception as error:
        raise UsageError(f"probe {own}: fails ({type(error).__name__}: {error})") from error
    if predicted.shape != val.labels.shape:
        raise UsageError(f"probe {own}: gives {list(predicted.shape)}; it has to be one label for each of "
                         f"{len(val.labels)} images")  # fmt: skip
    return _share(predicted.cpu() == val.labels)


def table(rows: Sequence[Row]) -> Table:
    """One line a row: kind, features, last blocks, top-1, and what was chosen."""
    cells = []
    for row in rows:
        chosen = "  ".join(
            f"{name.replace('_', ' ')} {row[name]}" for name in ("k", "weight_decay", "queries") if name in row
        )
        judged = row["kind"], row["features"], str(row["blocks"]), f"{row['top1']:.2%}"
        cells.append((*judged, chosen or row.get("probe", "")))
    return Table(["probe", "features", "last blocks", "top-1", ""], cells, align="<<<><")


def _fixed_rows(trial: Trial, choices: Sequence[Choice]) -> tuple[list[Row], dict[str, float]]:
    """kNN and the fast linear probe, over features computed in one pass for all choices; and the first one's RankMe."""
    config = trial.config
    trained = {*_ATTENDING} if config.linear == "fast" else {*_ATTENDING, "linear"}
    kinds = tuple(kind for kind in config.kinds if kind not in trained)
    if not kinds:
        return [], {}
    train, val = _features(trial, trial.train, choices), _features(trial, trial.val, choices)
    fixed = ProbeConfig(kinds=kinds, neighbours=config.neighbours, temperature=config.temperature, seed=config.seed)
    rows: dict[str, list[Row]] = {"knn": [], "linear": [], "own": []}
    for choice in choices:
        found = probe_features(train[choice], val[choice], trial.classes, fixed, trial.model.device)
        if "knn" in found:
            rows["knn"] += [_row("knn", choice, top1, k=k) for k, top1 in found["knn"]["by_k"].items()]
        if "linear" in found:
            rows["linear"].append(_row("linear", choice, probe="fast", **found["linear"]))
        rows["own"] += [_row(own, choice, **found[own]) for own in found if own not in rows]
    return rows["knn"] + rows["linear"] + rows["own"], {"rankme": rankme(val[choices[0]].vectors)}


def _attending_rows(trial: Trial, choices: Sequence[Choice], known: Sequence[Row]) -> list[Row]:
    """Of the probes that attend to patch tokens; known: the rows of the others, said before, as this takes long."""
    kinds = [kind for kind in _ATTENDING if kind in trial.config.kinds]
    if not kinds:
        return []
    for row in known:
        log.info("%s, %s: top-1 %.4f", row.get("probe", row["kind"]), row["features"], row["top1"])
    every_blocks = dict.fromkeys(choice.blocks for choice in choices)
    found = {blocks: train_attending(trial, kinds, blocks) for blocks in every_blocks}
    queries = {"efficient": {"queries": queries_within(trial.config.queries, trial.model.width)}}
    return [
        _row(kind, Choice("patches", blocks), found[blocks][kind], **queries.get(kind, {}))
        for kind in kinds
        for blocks in every_blocks
    ]


def _features(trial: Trial, source: Source, choices: Sequence[Choice]) -> dict[Choice, Features]:
    parts: dict[Choice, list[Features]] = {choice: [] for choice in choices}
    world, batches = trial.world, trial.batches(source, trial.world)
    if world.is_first:  # whose part is the first of equal ones
        batches = counted(batches, len(source) // world.size)
    with Precision(trial.config.precision, world.device).autocast():
        for batch in batches:
            for choice in choices:
                parts[choice] += stream(trial.model, [batch], choice.features, blocks=choice.blocks)
    whole = {choice: Features(*world.gather_rows(*joined(found))) for choice, found in parts.items()}
    if not all(len(found.labels) for found in whole.values()):
        raise DataError(f"{source.text}: none of its images can be read")
    return whole


def _row(kind: str, choice: Choice, top1: float, **chosen: Any) -> Row:
    return {"kind": kind, "features": choice.features, "blocks": choice.blocks, "top1": top1, **chosen}


def _summary(rows: Sequence[Row]) -> dict[str, Row]:
    """Each kind by its first choice of features; kNN with all its numbers of neighbours."""
    summary: dict[str, Row] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        first = of_kind[0]
        same = [row for row in of_kind if (row["features"], row["blocks"]) == (first["features"], first["blocks"])]
        reported = next((row for row in same if row.get("k") == _REPORTED_NEIGHBOURS), first)
        summary[kind] = {name: value for name, value in reported.items() if name != "kind"}
        if kind == "knn":
            summary[kind]["by_k"] = {row["k"]: row["top1"] for row in same}
    return summary


def _choices(model: ImageEncoder, config: ProbeConfig) -> list[Choice]:
    """Choices of features, tried on a blank image. Raises ModelError for one that was asked for and is not there."""
    if config.sweep:
        every = [Choice(kind, blocks) for blocks in _SWEPT_BLOCKS for kind in ("pooled", "class")]
        return [choice for choice in every if _lack(model, choice) is None]
    choices = [
        Choice(kind, n) for n in dict.fromkeys(config.blocks) for kind in dict.fromkeys(config.features or ("pooled",))
    ]
    for choice in choices:
        if (lack := _lack(model, choice)) is not None:
            raise lack
    return choices


def _paper_choices(model: ImageEncoder, config: ProbeConfig, choices: Sequence[Choice]) -> list[Choice]:
    """Where no features are named: the class token, as in the paper, if the encoder has one."""
    if config.features or config.sweep:
        return list(choices)
    named = [choice._replace(features="class") for choice in choices]
    return named if all(_lack(model, choice) is None for choice in named) else list(choices)


def _lack(model: ImageEncoder, choice: Choice) -> ModelError | None:
    blank = torch.zeros(1, model.config.channels, *model.config.image_hw, device=model.device)
    try:
        model.features(blank, choice.features, blocks=choice.blocks)
    except ModelError as error:
        return error
    return None


def _share(right: torch.Tensor) -> float:
    return int(right.sum()) / len(right)
