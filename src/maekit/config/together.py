"""Options that go unheeded beside others. What was typed is refused rather than ignored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from maekit.config import verbs
from maekit.config.classify import ClassifyConfig
from maekit.config.options import Option
from maekit.config.plan import PlanConfig
from maekit.config.pretrain import PretrainConfig
from maekit.config.probe import ProbeOptions
from maekit.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """names: options, or groups of them with a dot at the end, that are heeded only where `heeded` holds of the config.
    why: what is said where it does not."""

    names: str
    heeded: Callable[[Any], Any]
    why: str

    def covers(self, path: str) -> bool:
        """Whether an option is one of them."""
        return any(path == name or (name[-1] == "." and path.startswith(name)) for name in self.names.split())


def refuse_unheeded(config: Any, called: Mapping[str, str]) -> None:
    """Raises UsageError for a typed option that the others make vain.

    called: the names of those that were typed, by their paths.
    """
    for rule in _rules(config):
        vain = [path for path in called if rule.covers(path)]
        if vain and not rule.heeded(config):
            raise UsageError(f"{called[vain[0]]}: {rule.why}")


def offered(options: list[Option], config: Any) -> list[Option]:
    """Without those that are refused whatever stands beside them. config: one of the verb's, or its class."""
    never = [rule for rule in _rules(config) if rule.heeded is _never]
    return [option for option in options if not any(rule.covers(option.path) for rule in never)]


def _never(_: Any) -> bool:
    return False


def _rules(config: Any) -> list[Rule]:
    kind = config if isinstance(config, type) else type(config)
    of_scratch = _SCRATCH if kind is ClassifyConfig and config.model is not None else ()
    return [*(rule for one in kind.__mro__ for rule in _OF_KIND.get(one, ())), *of_scratch]


_HERE = "is of files elsewhere, as in s3://bucket/shard-{000..099}.tar; these images are here"


def _is_elsewhere(*sources: str) -> bool:
    return any("://" in source for source in sources)


def _sources(options: verbs.ColumnOptions) -> list[str]:
    """Whatever names images there."""
    named = (getattr(options, name, ()) for name in ("source", "data", "val", "images", "gallery"))
    return [source for one in named for source in ([one] if isinstance(one, str) else one)]


def _attends(options: ProbeOptions) -> bool:
    return not {"attentive", "efficient"}.isdisjoint(options.kinds)


_TRAINING = (
    Rule("validation.split", lambda c: not c.validation.source, "--val names the images to judge by; take one of them"),
    Rule("data.mean data.std", lambda c: c.data.normalise == "given", "is used with --normalise given alone; add that"),
    Rule("data.cache_limit", lambda c: c.data.shuffle or _is_elsewhere(c.data.source, c.validation.source),
         "serves random order alone, which --data.no-shuffle gives up"),
    Rule("data.window", lambda c: _is_elsewhere(c.data.source), _HERE),
    Rule("data.decode", lambda c: c.data.range is None or c.data.decode == "full",
         "with --data.range all pixels are decoded; take one of them"),
    Rule("augment.scale augment.ratio", lambda c: c.augment.crop == "random",
         "belongs to --augment.crop random; the crop is another"),
    Rule("augment.color_jitter_prob", lambda c: c.augment.color_jitter,
         "of what? give strengths by --augment.color-jitter"),
    Rule("schedule.epochs", lambda c: c.schedule.epochs is None or c.schedule.steps is None,
         "--steps says how long as well; take one of them"),
    Rule("optimizer.base_lr", lambda c: c.optimizer.base_lr is None or c.optimizer.lr is None,
         "--lr says the rate as well; take one of them"),
    Rule("optimizer.eps", lambda c: c.optimizer.name in ("adamw", "muon"), "belongs to --optimizer.name adamw"),
    Rule("optimizer.muon_momentum", lambda c: c.optimizer.name == "muon", "belongs to --optimizer.name muon"),
    Rule("optimizer.trust_coefficient", lambda c: c.optimizer.name == "lars", "belongs to --optimizer.name lars"),
    Rule("optimizer.decay_all", lambda c: c.optimizer.weight_decay > 0 or not c.optimizer.decay_all,
         "nothing decays by --optimizer.weight-decay 0; take one of them"),
    Rule("schedule.micro_batch_limit", lambda c: c.schedule.micro_batch_size is None,
         "--micro-batch-size says it exactly; take one of them"),
    Rule("schedule.min_lr", lambda c: c.schedule.course == "cosine",
         "belongs to --schedule.course cosine; the course is another"),
    Rule("schedule.cooldown", lambda c: c.schedule.course.endswith("cooldown"),
         "belongs to --schedule.course cooldown or linear_cooldown; add one of them"),
    Rule("schedule.milestones schedule.gamma", lambda c: c.schedule.course == "step",
         "belongs to --schedule.course step; add that"),
    Rule("run.reshard_after_forward", lambda c: c.run.parallel == "fsdp", "belongs to --run.parallel fsdp; add that"),
    Rule("run.overwrite", lambda c: not (c.run.overwrite and c.run.resume),
         "--resume goes on with what --overwrite would remove; take one of them"),
    Rule("run.resume run.overwrite", lambda c: c.run.out or not (c.run.resume or c.run.overwrite),
         "of which run? give --out"),
    Rule("run.allow_drift", lambda c: c.run.resume or c.run.branch or not c.run.allow_drift,
         "belongs to --resume and --branch"),
)  # fmt: skip
_SCRATCH = (
    Rule("model.decoder.", _never, "belongs to pretrain; a classifier has no decoder"),
    Rule("weights", _never, "scratch starts from nothing; training from weights is maekit finetune"),
    Rule("classifier.image_size classifier.resample_positions", _never,
         "belongs to finetune; in scratch --image-size is the model's own"),
    Rule("classifier.window", _never, "belongs to finetune; in scratch --model.window is the model's own"),
)  # fmt: skip
_OF_KIND: dict[type[Any], tuple[Rule, ...]] = {
    verbs.ColumnOptions: (
        Rule("cache_limit", lambda c: _is_elsewhere(*_sources(c)), _HERE),
    ),
    verbs.WeightsOptions: (
        Rule("resample_positions", lambda c: not c.resample_positions or c.image_size is not None,
             "to which size? give --image-size"),
    ),
    verbs.DataOptions: (
        Rule("channels image_column range images picture out val rate workers", lambda c: c.source,
             "of which images? give SOURCE"),
        Rule("cache_limit", lambda c: _is_elsewhere(c.source, c.val), _HERE),
    ),
    verbs.ReconstructOptions: (
        Rule("mask_ratio", lambda c: not c.mask, "what is hidden is painted in --mask; take one of them"),
        Rule("seed", lambda c: not c.mask, "nothing is drawn where --mask is painted; leave one of them out"),
    ),
    verbs.AppOptions: (
        Rule("gallery_images image_column batch_size workers", lambda c: c.gallery,
             "of which images? give --gallery SOURCE"),
    ),
    ProbeOptions: (
        Rule("val_split", lambda c: not c.val, "--val names the images to judge by; take one of them"),
        Rule("features blocks", lambda c: not c.sweep, "--sweep tries all; take one of them"),
        Rule("neighbours temperature", lambda c: "knn" in c.kinds, "belongs to knn, which --kinds leaves out"),
        Rule("linear", lambda c: "linear" in c.kinds, "belongs to linear, which --kinds leaves out"),
        Rule("epochs batch_size base_lr", lambda c: _attends(c) or ("linear" in c.kinds and c.linear == "paper"),
             "belongs to the probes that are trained in steps: --kinds attentive or efficient, or --linear paper"),
        Rule("trust_coefficient", lambda c: "linear" in c.kinds and c.linear == "paper",
             "belongs to LARS, by which --linear paper learns"),
        Rule("token_memory", _attends, "belongs to attentive and efficient, which --kinds leaves out"),
        Rule("queries", lambda c: "efficient" in c.kinds, "belongs to efficient, which --kinds leaves out; add it"),
    ),
    verbs.InspectOptions: (
        Rule("resample_positions channels window", _never,
             "weights are shown as they are; maekit convert changes them"),
    ),
    PretrainConfig: (
        *_TRAINING,
        Rule("validation.every validation.images validation.crop_share validation.lidar_views validation.stop_after "
             "validation.stop_by",
             lambda c: c.validation.source or c.validation.split is not None, "of which images? give --val"),
        Rule("validation.stop_by", lambda c: c.validation.stop_after is not None,
             "ends nothing without --validation.stop-after; add that"),
        Rule("weights", lambda c: not (c.run.branch and c.weights),
             "--branch goes on with the weights of its checkpoint; take one of --branch and --weights"),
        Rule("optimizer.layer_decay", _never,
             "pretraining has one rate for all layers; it belongs to finetune and scratch"),
    ),
    PlanConfig: (
        Rule("weights validation.source validation.every validation.images validation.crop_share "
             "validation.lidar_views validation.stop_after validation.stop_by run.out run.resume run.branch "
             "run.overwrite run.allow_drift run.keep run.log_every run.tensorboard run.hang_timeout "
             "run.async_checkpoint", _never, "belongs to pretrain; a plan is the same without it"),
        Rule("augment. data.normalise data.mean data.std data.range data.workers data.bad_share data.shuffle "
             "data.decode run.seed run.device run.compile",
             lambda c: c.measure, "changes nothing that is counted; add --measure"),
        Rule("images", lambda c: not c.data.source, "--data says how many there are; take one of them"),
        Rule("measure", lambda c: c.data.source or not c.measure, "on which images? give --data"),
        Rule("rate", lambda c: not c.measure, "--measure finds it; take one of them"),
    ),
    ClassifyConfig: (
        *_TRAINING,
        Rule("run.branch schedule.resolutions", _never, "belongs to pretrain"),
        Rule("validation.images", _never, "belongs to pretrain; classifiers are judged on all of --val"),
        Rule("validation.lidar_views validation.stop_after validation.stop_by", _never, "belongs to pretrain"),
        Rule("mix.prob", lambda c: c.mix.mixup or c.mix.cutmix, "of what? give --mix.mixup or --mix.cutmix"),
        Rule("mix.switch_prob", lambda c: c.mix.mixup and c.mix.cutmix,
             "switches between --mix.mixup and --mix.cutmix; give both"),
    ),
}  # fmt: skip
