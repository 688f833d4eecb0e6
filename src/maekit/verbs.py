"""Every verb as a function, for programs and notebooks. The command line is a face on these.

SOURCE is what it is on the command line (a folder, a list file, .parquet, shards, `hf:REPO@split`, `digits:train`), a
path, a map-style data set (torch's, `datasets`', an array of images), or a list of paths. W is a run folder, a file of
weights, `hf:REPO`, or a model. What a person can set right raises a `MaekitError` of one line, of the kinds that are
named here. Progress and log lines go to standard error, nothing to standard output.
"""

from collections.abc import Mapping
from typing import Any, Unpack

from maekit import presets, results
from maekit.calling import lists_common, or_of_tensors, takes, to_terminal
from maekit.config import ClassifyConfig, PlanConfig, PretrainConfig, ProbeOptions, beforehand, objects, verbs
from maekit.config.keywords import Common, Planning
from maekit.trainings import JUDGED_BY, config_of, need, train


@takes(verbs.DemoOptions)
def demo(options: verbs.DemoOptions) -> results.Demo:
    """The whole story on embedded data: pretrain, judge, fine-tune with few labels, report.

    Top-1 are shares of the 360 test digits. RunError where `out` holds a run; Stopped after any signal, saved.

    Examples:
        >>> story = maekit.demo(out="runs/story", steps=2, few_label_steps=2, seeds=1)
        >>> sorted(story.probe), sorted(story.few_labels)
        (['pretrained', 'untrained'], ['from scratch', 'pretrained'])
    """
    from maekit.recipes import demo as recipe

    return recipe.run(options)


@takes(verbs.DataOptions)
def data(options: verbs.DataOptions) -> results.Examined:
    """Look at images before training: counts, sizes, unreadable files, duplicates, mean and std, speed.

    Sizes in px; mean and std per channel in [0, 1]. DataError where nothing is there, or no image can be read: its
    `answer` holds what was found all the same.

    Examples:
        >>> found = maekit.data("digits:train", images=20, channels=1, workers=0)
        >>> found.images, len(found.classes), found.sizes["width"]["largest"], len(found.mean)
        (1437, 10, 8, 1)
    """
    need(options.source or options.clear_cache, "--data", "the images to look at")

    from maekit.inference import doctor
    from maekit.report.images import write

    return doctor.run(options, page=write)


@takes(verbs.SuggestOptions)
def suggest(options: verbs.SuggestOptions) -> results.Suggested:
    """One pretraining command for your images and this machine, with the reasons.

    Looks at some images, begins the run that it has in mind, and times it. Raises DataError where no image can be read,
    TrainingError where memory is too small for one.

    Examples:
        >>> said = maekit.suggest("digits:train", hours=0.01, device="cpu")
        >>> said.command.split()[:3]
        ['maekit', 'pretrain', 'digits']
        >>> maekit.pretrain(said.preset, options={**said.options, "steps": 2, "out": "runs/suggested"}).steps
        2
    """
    from maekit.recipes import suggest as recipe

    return recipe.run(options)


@takes(verbs.PackOptions)
def pack(options: verbs.PackOptions) -> results.Packed:
    """Make images smaller once, in files that are quick to train on.

    A folder `out`, which is a source with the same labels, classes and order. Ended before its time, the same call goes
    on; done already, it says so. DataError where no image can be read, StorageError where `out` is something else,
    UsageError for more shards than images, or an `out` among the images.

    Examples:
        >>> said = maekit.pack("digits:train", out="packed", workers=0)
        >>> said.images, said.how
        (1437, {'small already': 1437})
        >>> maekit.data("packed", images=20, channels=1, workers=0).images
        1437
    """
    beforehand.check_apart(options.source, options.out)

    from maekit.inference.pack import pack

    return pack(options)


def plan(
    preset: objects.Path | PretrainConfig, *, options: Mapping[str, Any] | None = None, **common: Unpack[Planning]
) -> results.Planned:
    """What a pretraining on many GPUs would take, before anything is bought: an estimate, nothing is trained.

    preset: as of `pretrain`, whose options it takes too: the plan is of what that would run. images, in place of data,
    is their number alone. UsageError for options that fit nothing, RunError for a batch that does not divide over the
    GPUs, DataError, ModelError for sizes that do not fit.

    Examples:
        >>> said = maekit.plan("digits", images=1_000_000, gpus=4, memory=16, rate=5000.0)
        >>> said.gpus * said.micro_batch_size * said.accumulation == said.batch_size, said.fits, said.hours < 3
        (True, True, True)
        >>> [(way["parallel"], way["checkpoint_activations"]) for way in said.memory][:2]
        [('ddp', False), ('ddp', True)]
    """
    given = PlanConfig.of(preset) if type(preset) is PretrainConfig else preset
    config = config_of("plan", given, common, options)
    need(config.data.source or config.images, "--data", "the images to plan for; or their number: --images N")
    beforehand.check_training(config, config.gpus)

    from maekit.recipes import plan as recipe

    with to_terminal():
        return recipe.run(config)


@lists_common
def pretrain(
    preset: objects.Path | PretrainConfig, *, options: Mapping[str, Any] | None = None, **common: Unpack[Common]
) -> results.Run:
    """Masked pretraining of an encoder, from nothing or continued from weights.

    preset: its name, a saved config's path, or a config. common: options with a short name, underscores in it. options:
    any other, by its dotted path. Interrupted (Ctrl-C, a notebook's stop), it saves and returns what is not `complete`;
    with the same `out` and `resume=True` it goes on. UsageError for options that fit nothing, DataError, WeightsError,
    ModelError for sizes that do not fit, RunError where `out` holds a run, TrainingError for a loss that is not finite,
    Stopped after SIGTERM or SIGUSR1, saved.

    Examples:
        >>> run = maekit.pretrain("digits", steps=2, out="runs/two", device="cpu", options={"model.depth": 2})
        >>> run.steps, run.complete, run.loss > 0
        (2, True, True)
    """
    return train("pretrain", preset, common, options)


@takes(ProbeOptions)
def probe(options: ProbeOptions) -> results.Probed:
    """Frozen features judged: nearest neighbours, a linear layer, attentive queries.

    Top-1 are shares of `val`, or of what `val_split` holds out. DataError for sources that cannot be compared,
    ModelError for features that the encoder lacks, WeightsError.

    Examples:
        >>> judged = maekit.probe("runs/digits", "digits:train", val="digits:test", kinds=["knn"], per_class=20)
        >>> judged.train_images, judged.val_images, 0 <= judged.probes["knn"]["top1"] <= 1
        (200, 360, True)
    """
    need(options.val or options.val_split, "--val", JUDGED_BY)

    from maekit.recipes import probe as recipe

    return recipe.run(options)


@lists_common
def finetune(
    preset: objects.Path | ClassifyConfig, *, options: Mapping[str, Any] | None = None, **common: Unpack[Common]
) -> results.Run:
    """Full or partial fine-tuning of a pretrained encoder as a classifier.

    As `pretrain`; `record` holds val_top1, val_top5 (shares) and val_loss. DataError where images have no labels.

    Examples:
        >>> run = maekit.finetune("digits", weights="runs/digits", per_class=2, steps=2, out="runs/few")
        >>> run.steps, 0 <= run.record["val_top1"] <= 1
        (2, True)
    """
    return train("finetune", preset, common, options)


@lists_common
def scratch(
    preset: objects.Path | ClassifyConfig, *, options: Mapping[str, Any] | None = None, **common: Unpack[Common]
) -> results.Run:
    """Supervised training from nothing, to compare with.

    As `finetune`, without weights.

    Examples:
        >>> maekit.scratch("digits", per_class=2, steps=2, out="runs/scratch").steps
        2
    """
    return train("scratch", preset, common, options)


@takes(verbs.WatchOptions)
def watch(options: verbs.WatchOptions) -> results.Served:
    """A run's report while the run goes on: a page on this machine that follows its history.

    Serves until it is interrupted, or for `seconds`. RunError for a folder without a run, or a port in use.

    Examples:
        >>> maekit.watch("runs/digits", port=0, seconds=0.2).url.startswith("http://127.0.0.1:")
        True
    """
    from maekit.app.watch import watch

    with to_terminal():
        return watch(options)


@takes(verbs.CompareOptions)
def compare(options: verbs.CompareOptions) -> results.Compared:
    """Several runs on one page: what differs between their options, how they ended, their curves, what they paint.

    UsageError for fewer than two runs, RunError for a folder without one, StorageError.

    Examples:
        >>> said = maekit.compare(["runs/digits", "runs/tuned"], out="compare.html")
        >>> said.runs["tuned"]["steps"], "weights" in said.differences
        (2, True)
    """
    from maekit.report.compare import compare

    return compare(options)


@takes(verbs.CardOptions)
def card(options: verbs.CardOptions) -> results.Described:
    """A model card in the Hugging Face hub's format, of what a run folder tells; printed, or written to `out`.

    RunError for a folder without a run or its weights, UsageError for a file of no probe, StorageError.

    Examples:
        >>> maekit.card("runs/digits", out="README.md").license
        'unknown'
    """
    from maekit.report.card import card

    return card(options)


@takes(verbs.EvaluateOptions)
def evaluate(options: verbs.EvaluateOptions) -> results.Evaluated:
    """Top-1, top-5, loss and a per-class table of a classifier.

    Shares, and the mean cross-entropy. DataError without labels or with other classes, WeightsError without a head.

    Examples:
        >>> said = maekit.evaluate("runs/tuned", "digits:test", device="cpu")
        >>> said.images, said.top1 <= said.top5, sorted(said.classes)[:2]
        (360, True, ['0', '1'])
    """
    from maekit.inference.evaluate import evaluate
    from maekit.report.figures import heat

    return evaluate(options, heat=heat)


@takes(verbs.ClassifyOptions)
def classify(options: verbs.ClassifyOptions) -> results.Classified:
    """Predictions with probabilities.

    images: one SOURCE, or several image files and SOURCEs. Of each image the `top` classes, the most probable first.
    DataError where none can be read, WeightsError without a head.

    Examples:
        >>> said = maekit.classify("runs/tuned", np.zeros((2, 8, 8), np.uint8), top=3)
        >>> [len(image["top"]) for image in said.images]
        [3, 3]
    """
    from maekit.inference.classify import classify

    return classify(options)


@or_of_tensors
@takes(verbs.ReconstructOptions)
def reconstruct(options: verbs.ReconstructOptions) -> results.Reconstructed:
    """Masked, reconstruction and original, side by side.

    A picture at `out`, a row an image. Or of tensors, `reconstruct(model, images, masked)`: images [N, C, H, W] float
    in [0, 1], what is hidden painted, of images [N, C, H, W] float in [0, 1] or uint8 and masked [N, L] bool, True =
    hidden, as many in each. ModelError where they do not fit, WeightsError without a decoder, DataError, StorageError.

    Examples:
        >>> said = maekit.reconstruct("runs/digits", "digits:test", out="digits.png", rows=2, mask_ratio=0.5)
        >>> said.images, said.masked
        (2, 0.5)
        >>> model = maekit.load("runs/digits")
        >>> maekit.reconstruct(model, torch.zeros(2, 1, 8, 8), torch.arange(16).repeat(2, 1) < 8).shape
        torch.Size([2, 1, 8, 8])
    """
    from maekit.inference.reconstruct import reconstruct_files

    return reconstruct_files(options)


@takes(verbs.EmbedOptions)
def embed(options: verbs.EmbedOptions) -> results.Embedded:
    """Features of images, to a file.

    path, label and vector [N, D] float32 (patches: [N, T, D]). In memory: `load(weights).features(images)`. UsageError
    for files of another kind, ModelError for a class token that is not there, DataError, WeightsError, StorageError.

    Examples:
        >>> said = maekit.embed("runs/digits", "digits:test", out="digits.npz")
        >>> np.load(said.out)["vector"].shape == (said.images, said.width) == (360, 96)
        True
    """
    from maekit.inference.embed import embed

    return embed(options)


@takes(verbs.AppOptions)
def app(options: verbs.AppOptions) -> results.Served:
    """A page in the browser: hide parts of a picture, and see what models paint there, recognise and find alike.

    Serves until it is interrupted, or for `seconds`. UsageError where FastAPI is not installed, or for an address that
    is no machine's; RunError for a port in use, DataError for a gallery without readable images, WeightsError.

    Examples:
        >>> said = maekit.app("runs/digits", gallery="digits:test", gallery_images=20, port=0, seconds=0.2)
        >>> said.url.startswith("http://127.0.0.1:"), said.answers
        (True, 0)
    """
    from maekit.app import server

    return server.serve(options)


@takes(verbs.InspectOptions)
def inspect(options: verbs.InspectOptions) -> results.Inspected:
    """What a checkpoint holds, what it can do, and what it cannot and why.

    Sizes are [height, width] in px. WeightsError for what is in no known layout, or damaged.

    Examples:
        >>> found = maekit.inspect("runs/digits")
        >>> found.image_size, found.can
        ([8, 8], ['reconstruct', 'embed'])
    """
    if options.config:
        presets.find(presets.PRETRAIN, PretrainConfig, options.config)

    from maekit.inference.inspect import inspect

    return inspect(options)


@takes(verbs.ConvertOptions)
def convert(options: verbs.ConvertOptions) -> results.Converted:
    """Write weights in another layout.

    Graphs are run beside the model before they are kept. UsageError for a name that belies its content, WeightsError
    for what has no place in the layout, StorageError.

    Examples:
        >>> maekit.convert("runs/digits", to="timm", out="digits-timm").part
        'encoder'
    """
    from maekit.inference.convert import convert

    return convert(options)
