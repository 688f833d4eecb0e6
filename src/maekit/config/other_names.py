"""What options of other tools are called here: FlyEgle/MAE-pytorch, facebookresearch/mae, timm, and common habits.

Keys are names without dashes in front, `-` for `_`. docs/from-flyegle.md shows all options of the first of these.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Other:
    """ours: options with or without a value, of which the first that a verb has is named. note: what else differs.
    otherwise: what is said in verbs that have none of them."""

    ours: tuple[str, ...] = ()
    note: str = ""
    otherwise: str = ""


def _all(names: str, *ours: str, note: str = "", otherwise: str = "") -> dict[str, Other]:
    return dict.fromkeys(names.split(), Other(ours, note, otherwise))


_CLASSES = "classes are those of the labelled images"
_OWN_MODEL = "the model is the weights' own"

OTHER_NAMES: dict[str, Other] = {
    # images
    **_all("crop-size input-size img-size imgsize image-res resolution size", "--image-size", "--short-side",
           otherwise=_OWN_MODEL),
    **_all("short-edge shorter-side shortest-side shorter-edge shortest-edge min-size smallest-side max-resolution",
           "--short-side", "--image-size"),
    **_all("encode-quality jpeg-quality", "--quality"),
    **_all("train-file train-path train-dir train data-path data-dir data-root dataset root folder images-dir "
           "image-dir source input", "--data"),
    **_all("test-image test-images image images img test-file test-path test-dir", "--data"),
    **_all("val-file val-path val-dir val-data validation eval-data test-data", "--val"),
    **_all("patience early-stopping early-stopping-patience early-stop", "--validation.stop-after",
           note="in validations"),
    **_all("calculate-val do-eval", "--val", note="where it is given, it is judged by"),
    **_all("num-classes nb-classes n-classes classes", otherwise=_CLASSES),
    **_all("channels in-chans in-channels num-channels n-channels", "--channels", "--model.channels"),
    **_all("gray grey grayscale greyscale", "--channels 1", "--model.channels 1"),
    **_all("num-workers n-workers nworkers loader-workers j", "--workers"),
    **_all("pin-mem pin-memory", otherwise="memory is pinned where it helps"),
    # augmentation
    **_all("color-prob color-jitter colour-jitter colorjitter jitter", "--augment.color-jitter",
           note="its strengths; how often is --augment.color-jitter-prob"),
    **_all("color-jitter-prob colour-jitter-prob", "--augment.color-jitter-prob"),
    **_all("aa auto-augment autoaugment", "--augment.randaugment"),
    **_all("reprob re-prob random-erasing", "--augment.erase"),
    **_all("hflip", "--augment.flip"),
    **_all("repeated-aug", "--augment.repeats"),
    **_all("mixup mixup-alpha", "--mix.mixup"),
    **_all("cutmix cutmix-alpha", "--mix.cutmix"),
    **_all("cutmix-minmax", "--mix.cutmix", note="by its alpha alone"),
    **_all("mixup-prob", "--mix.prob"),
    **_all("mixup-switch-prob switch-prob", "--mix.switch-prob"),
    **_all("mixup-mode", "--mix.mixup", note="by batch, the one mode there is"),
    **_all("smoothing label-smoothing", "--mix.smoothing"),
    # model
    **_all("model-name model arch architecture backbone net vit", "--model.encoder", note="or another preset",
           otherwise=_OWN_MODEL),
    **_all("patch-size vision-patch-size", "--model.patch-size", otherwise=_OWN_MODEL),
    **_all("embed-dim", "--model.width", otherwise=_OWN_MODEL),
    **_all("decoder-embed-dim decoder-dim", "--model.decoder.width"),
    **_all("decoder-num-heads", "--model.decoder.heads", "--decoder-heads"),
    **_all("num-heads", "--model.heads", "--heads"),
    **_all("masking-ratio", "--mask-ratio"),
    **_all("mask-type mask-kind mask-strategy masking masking-strategy", "--mask.kind"),
    **_all("norm-pix-loss norm-pix", "--target.kind normalised"),
    **_all("drop-path drop-path-rate", "--classifier.drop-path"),
    **_all("patch-drop patch-drop-rate patch-dropout", "--classifier.patch-drop"),
    **_all("global-pool", "--classifier.pooling mean"),
    **_all("layerscale init-values layer-scale-init ls-init", "--model.layer-scale", otherwise=_OWN_MODEL),
    **_all("registers reg-tokens num-reg-tokens num-registers num-register-tokens n-registers",
           "--model.register-tokens", otherwise=_OWN_MODEL),
    **_all("channel-agnostic channel-vit channelvit per-channel", "--model.channel-tokens", otherwise=_OWN_MODEL),
    **_all("rope rotary use-rope use-rot-pos-emb", "--model.positions rotary", otherwise=_OWN_MODEL),
    **_all("cls-token", "--classifier.pooling class", "--model.class-token"),
    **_all("model-ema model-ema-decay ema-decay", "--run.ema"),
    # weights and runs
    **_all("finetune", "--weights",
           note="training a classifier from them is maekit finetune, from nothing maekit scratch",
           otherwise="training a classifier is maekit finetune, from weights, or maekit scratch, from nothing"),
    **_all("ckpt checkpoint checkpoint-path ckpt-path pretrained pretrained-weights pretrained-path load-from init "
           "weight", "--weights"),
    **_all("resume-from resume-from-checkpoint start-epoch auto-resume continue", "--resume", note="with --out RUN"),
    **_all("checkpoints-path checkpoint-dir save-dir save-path output-dir output-path output outdir work-dir exp-dir "
           "log-dir logdir log-path o", "--out"),
    **_all("save-freq save-every save-interval", "--checkpoint-every", note="in steps"),
    **_all("print-freq log-freq log-interval log-every", "--run.log-every", note="in steps"),
    **_all("eval evaluate test", otherwise="judging a classifier is maekit evaluate"),
    **_all("topk top-k", "--top"),
    **_all("linear-probe linprobe linear-eval lin-eval knn", otherwise="judging frozen features is maekit probe"),
    # length, rates, optimizer
    **_all("max-epochs num-epochs n-epochs total-epochs epoch e", "--epochs"),
    **_all("max-steps num-steps total-steps iterations max-iter max-iters", "--steps"),
    **_all("bs batch b", "--batch-size", note="over all devices"),
    **_all("accum-iter accum accumulate grad-accum gradient-accumulation gradient-accumulation-steps",
           "--micro-batch-size",
           note="images per device and pass; --batch-size divided by it and by devices is accumulated"),
    **_all("learning-rate", "--lr", "--base-lr"),
    **_all("blr", "--base-lr"),
    **_all("warmup warmup-epochs", "--schedule.warmup-epochs"),
    **_all("warmup-steps warmup-iters", "--schedule.warmup-epochs", note="in epochs"),
    **_all("cosine lr-scheduler lr-schedule scheduler sched", "--schedule.course"),
    **_all("multisteps multi-steps lr-steps lr-milestones decay-epochs milestones", "--schedule.milestones",
           note="in epochs, with --schedule.course step"),
    **_all("lr-gamma lr-decay-rate decay-rate gamma", "--schedule.gamma", note="with --schedule.course step"),
    **_all("optimizer-name optimizer optim opt", "--optimizer.name"),
    **_all("momentum beta1", "--optimizer.betas", note="its first number"),
    **_all("wd weight-decay weights-decay", "--optimizer.weight-decay"),
    **_all("layer-decay layer-wise-decay llrd", "--optimizer.layer-decay"),
    **_all("min-lr eta-min final-lr", "--schedule.min-lr"),
    **_all("lars", "--optimizer.name lars", "--linear paper", note="without it, LARS is off"),
    **_all("lars-confience lars-confidence lars-coefficient lars-eta trust-coefficient trust-coeff",
           "--optimizer.trust-coefficient", "--trust-coefficient"),
    **_all("clip-grad grad-clip clip max-norm gradient-clip-val", "--optimizer.clip"),
    # device and precision
    **_all("amp use-amp mixed-precision", "--precision", note="auto, the default, is mixed on a GPU"),
    **_all("fp16 half use-fp16", "--precision fp16"),
    **_all("bf16 bfloat16 use-bf16", "--precision bf16"),
    **_all("fp32 no-amp", "--precision fp32"),
    **_all("dtype", "--precision"),
    **_all("gpu gpu-id cuda use-cuda use-gpu", "--device", note="cuda, or cuda:N"),
    **_all("no-cuda cpu", "--device cpu"),
    **_all("grad-checkpointing use-checkpoint gradient-checkpointing", "--run.checkpoint-activations"),
    **_all("dist-eval", otherwise="every process judges its share"),
}  # fmt: skip

_COUNTS = (
    "gpus ngpu ngpus n-gpu n-gpus num-gpus num-gpu gpu-ids devices num-devices n-devices nproc nprocs nproc-per-node "
    "num-processes num-procs world-size"
)
_REST = (
    "node-rank rank local-rank distributed dist ddp dist-backend dist-url backend multi-gpu "
    "multigpu multiprocessing-distributed data-parallel strategy master-port master-addr"
)
COUNTS_DEVICES = frozenset(_COUNTS.split())
"""Names of options whose value is a number of devices, or a list of them."""
COUNTS_NODES = frozenset(("nnodes", "num-nodes", "nodes"))
"""Those whose value is a number of machines."""
OF_TORCHRUN = COUNTS_DEVICES | COUNTS_NODES | frozenset(_REST.split())
"""Those by which other tools spread a training over devices: here it is torchrun that does."""
