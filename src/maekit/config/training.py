"""How a model is trained: optimizer, schedule, and the run itself."""

from itertools import pairwise
from typing import Literal

from tyro.conf import arg

from maekit.config.objects import PathText, text
from maekit.config.schema import CLIMBING, DEVICE, PART_NAME, Annotated, Field, config
from maekit.errors import RunError, UsageError

_STEPS_AN_EPOCH = 30  # that are enough for the recipe's batch, as on 123,000 images in batches of 4,096
_SMALL_BATCH = 64


@config
class OptimizerConfig:
    """Optimizer. `lr` wins over `base_lr` where both are set; naming one on the command line clears the other."""

    name: Literal["adamw", "lars", "sgd", "muon"] = "adamw"
    """adamw, lars (arXiv 1708.03888, as in the paper's linear probe), sgd with momentum, or muon (arXiv 2605.24770) for
    the matrices of blocks, at AdamW's rates, and AdamW for all else."""
    base_lr: Annotated[float | None, arg(aliases=("--base-lr",)), Field(gt=0)] = None
    """Learning rate per 256 images of the batch; the actual one is this times batch size / 256."""
    lr: Annotated[float | None, arg(aliases=("--lr",)), Field(gt=0)] = None
    """Absolute peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two decay rates; the first is the momentum of LARS and SGD."""
    muon_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """muon: the momentum of its matrices."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """lars: a matrix's rate is multiplied by this and by its norm over its gradient's."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay; on biases, norms, tokens and positions by decay_all alone."""
    decay_all: bool = False
    """Whether weight decay is for every parameter that is trained, as in FlyEgle/MAE-pytorch."""
    layer_decay: Annotated[float | None, Field(gt=0, le=1)] = None
    """Factor on the learning rate from each block to the one below it; None: none."""
    clip: Annotated[float | None, Field(gt=0)] = None
    """Largest gradient norm; None: no clipping."""

    def actual_lr(self, batch_size: int) -> float:
        """Peak learning rate at this batch size (images per optimizer step over all devices)."""
        if self.lr is not None:
            return self.lr
        if self.base_lr is None:
            raise UsageError("optimizer: neither --lr nor --base-lr is set; give one of them")
        return self.base_lr * batch_size / 256


@config
class ScheduleConfig:
    """How long, in what batches, and the learning rate by the step: warmup, then half a cosine or another course."""

    epochs: Annotated[float | None, arg(aliases=("--epochs",)), Field(gt=0)] = None
    """Passes over the data. Also the yardstick of the warmup."""
    steps: Annotated[int | None, arg(aliases=("--steps",)), Field(ge=0)] = None
    """Optimizer steps; where set it wins over epochs, and warmup keeps its share."""
    batch_size: Annotated[int | None, arg(aliases=("--batch-size",)), Field(ge=1)] = None
    """Images per optimizer step, over all devices. None: the recipe's, but fewer where there are far fewer images than
    it is made for, or on a CPU; which is said."""
    recipe_batch_size: Annotated[int, Field(ge=1)] = 4096
    """Images per optimizer step in the preset's recipe."""
    recipe_images: Annotated[int, Field(ge=1)] = 1_281_167
    """Training images that the recipe is made for; those of ImageNet-1k where it says nothing else."""
    micro_batch_size: Annotated[int | None, arg(aliases=("--micro-batch-size",)), Field(ge=1)] = None
    """Images per device and pass. None: the largest divisor of the device's share that the preset says fits."""
    micro_batch_limit: Annotated[int, Field(ge=1)] = 256
    """The most images per device and pass that are chosen where micro_batch_size is None."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the learning rate grows from zero."""
    course: Literal["cosine", "constant", "step", "early_cosine", "cooldown", "linear_cooldown"] = "cosine"
    """The learning rate after the warmup. cosine: half a cosine down to min_lr. constant: as it is. step: times gamma
    at each of the milestones. early_cosine: a cosine that began with the run, reaches zero a warmup before the end and
    rises again (FlyEgle/MAE-pytorch). cooldown: as it is, then down to zero by 1 - sqrt of the way (arXiv 2405.18392),
    so that --branch ends one run at several lengths. linear_cooldown: the same in a straight line."""
    cooldown: Annotated[float, Field(gt=0, le=1)] = 0.2
    """cooldown, linear_cooldown: the share of the steps in which the rate falls, the last ones."""
    milestones: Annotated[tuple[Annotated[float, Field(gt=0)], ...], CLIMBING] = ()
    """step: the epochs at which the rate falls, the first one first. Where `steps` is set too they keep their share."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step: what the rate is multiplied by at each milestone."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of a cosine."""
    resolutions: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Smaller training images first (arXiv 2104.00298): pairs of the shorter side in pixels and the share of the run
    until which it is that. 128 0.6 160 0.9 ends with a tenth at the model's own size."""

    @property
    def images_a_step(self) -> int:
        """The batch that was given, or else the recipe's."""
        return self.recipe_batch_size if self.batch_size is None else self.batch_size

    def fitting_batch(self, images: int, world_size: int, *, on_cpu: bool) -> int:
        """The batch for so many images where none is given: the recipe's, or that halved.

        It is halved down to 64 as long as an epoch has fewer than thirty steps and fewer than in the recipe, or on a
        CPU, which computes no image faster in a larger batch; and further down to the number of images.
        """
        recipe = self.recipe_batch_size
        enough = min(_STEPS_AN_EPOCH, self.recipe_images / recipe)
        batch = recipe
        while batch > images or (batch > _SMALL_BATCH and (on_cpu or images / batch < enough)):
            batch //= 2
        if batch == recipe:
            return recipe
        unit = world_size * (self.micro_batch_size or 1)
        even = unit if unit % (2 * world_size) == 0 else 2 * unit  # mixing pairs the images of a pass
        unit = even if even <= batch else unit
        return max(unit, batch - batch % unit)

    def total_steps(self, images: int) -> int:
        """Optimizer steps over a source of this many images; the last epoch's rest is rounded up to a whole batch."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None:
            raise UsageError("schedule: neither --epochs nor --steps is set; give one of them")
        return -int(-self.epochs * images // self.images_a_step)

    def warmup_steps(self, images: int) -> int:
        """Steps of warmup: its share of the epochs, also where `steps` sets the length."""
        return self._steps_at(self.warmup_epochs, images) if self.warmup_epochs else 0

    def sizes(self, image_hw: tuple[int, int], steps: int) -> list[tuple[int, int, tuple[int, int]]]:
        """From and until which step training images have which height and width, the model's own `image_hw` at last.

        Raises UsageError for resolutions that are no pairs.
        """
        sides, shares = self.resolutions[::2], self.resolutions[1::2]
        if len(sides) != len(shares) or sorted({0.0, *shares, 1.0}) != [0.0, *shares, 1.0]:
            raise UsageError("schedule.resolutions: takes pairs, a size and a rising share of the run: 128 0.6 160 0.9")
        smaller = [tuple(round(side * length / min(image_hw)) for length in image_hw) for side in sides]
        borders = [0, *(round(share * steps) for share in shares), steps]
        return [(*between, (hw[0], hw[1])) for between, hw in zip(pairwise(borders), [*smaller, image_hw], strict=True)]

    def milestone_steps(self, images: int) -> tuple[int, ...]:
        """The steps at which the rate falls: as epochs, or as their share where `steps` sets the length.

        One at or after the end is the number of steps. Raises UsageError where a course of steps has none.
        """
        if self.course != "step":
            return ()
        if not self.milestones:
            raise UsageError("schedule.course step: at which epochs does the rate fall? give --schedule.milestones")
        return tuple(self._steps_at(milestone, images) for milestone in self.milestones)

    def _steps_at(self, epoch: float, images: int) -> int:
        steps = self.total_steps(images)
        epochs = self.epochs if self.epochs is not None else steps * self.images_a_step / images
        return round(steps * min(1.0, epoch / epochs))

    def micro_batch(self, world_size: int) -> int:
        """Images per device and pass. Raises RunError where the batch does not divide."""
        if self.images_a_step % world_size:
            below = self.images_a_step // world_size * world_size or world_size
            raise RunError(
                f"schedule.batch_size: {self.images_a_step} images do not divide over {world_size} devices; take a "
                f"multiple of {world_size}, such as {below} or {below + world_size}"
            )
        share = self.images_a_step // world_size
        if self.micro_batch_size is None:
            return max(d for d in range(1, min(share, self.micro_batch_limit) + 1) if share % d == 0)
        if share % self.micro_batch_size:
            raise RunError(
                f"schedule.micro_batch_size: {share} images a device ({self.images_a_step} over {world_size}) are not "
                f"a multiple of {self.micro_batch_size}; take a divisor of {share}"
            )
        return self.micro_batch_size


@config
class RunConfig:
    """Where a run goes and how it is executed; none of it changes what is learned, but for seed and precision."""

    out: Annotated[PathText, arg(aliases=("--out",))] = text("")
    """Run folder. Empty: runs/NAME-DATE-TIME."""
    resume: Annotated[bool, arg(aliases=("--resume",))] = False
    """Continue from the newest sound checkpoint in the run folder, or start where there is none, and say which."""
    branch: Annotated[PathText, arg(aliases=("--branch",))] = text("")
    """Go on, in a folder of its own, from another run's RUN/checkpoints/step-N, exactly as that would have. Length and
    course of the rate may be others."""
    overwrite: Annotated[bool, arg(aliases=("--overwrite",))] = False
    """Start anew in a folder that holds a run; what that run wrote is removed."""
    allow_drift: Annotated[bool, arg(aliases=("--allow-drift",))] = False
    """Resume even where data, seed, batch size or model differ from the run's."""
    seed: Annotated[int, arg(aliases=("--seed",)), Field(ge=0, lt=2**63)] = 0
    """Fixes data order, augmentation, masks and initial weights."""
    device: Annotated[str, arg(aliases=("--device",)), DEVICE] = "auto"
    """auto (cuda, then cpu), cpu, cuda, cuda:N, mps."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], arg(aliases=("--precision",))] = "auto"
    """Of the forward and backward pass; weights stay fp32. auto: bf16 on a GPU that has it, else fp16 with loss
    scaling on a GPU, else fp32."""
    checkpoint_every: Annotated[int | None, arg(aliases=("--checkpoint-every",)), Field(ge=1)] = None
    """Steps between checkpoints. None: 20 a run, but at least 50 steps apart. The end is always saved."""
    keep: Annotated[int, arg(aliases=("--keep",)), Field(ge=1)] = 2
    """Newest checkpoints kept; older ones are removed."""
    log_every: Annotated[int | None, Field(ge=1)] = None
    """Steps between lines of metrics.jsonl. None: about 1,000 lines a run, at most 50 steps apart."""
    profile: Annotated[int | None, Field(ge=1)] = None
    """Write trace.json.gz of so many steps of the first process (for Perfetto), and say which operations were the
    dearest."""
    compile: Annotated[bool, arg(aliases=("--compile",))] = False
    """torch.compile the step. Its first takes longer, on a CPU up to minutes, and needs a C++ compiler."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    ema: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Decay per step of a running average of the weights, in pretraining of the encoder's alone, saved and evaluated
    beside them; None: none. A run of fewer than 6 / (1 - decay) steps takes a faster one, and says so."""
    tensorboard: bool = True
    """Write tensorboard/ beside metrics.jsonl."""
    parts: Annotated[tuple[Annotated[str, PART_NAME], ...], arg(aliases=("--parts",))] = ()
    """Your own parts, module:object, that the weights it starts from name: no code is imported because of a file."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun. ddp: each process has all weights. fsdp: weights, gradients and moments are divided between
    them, and brought together block by block: less memory, more to be sent. What is learned is the same."""
    reshard_after_forward: bool = True
    """fsdp: whether a block's weights are let go after the forward pass and sent again for the backward one; false
    takes more memory and sends a third less."""
    async_checkpoint: bool = False
    """Go on training while a checkpoint is written; its state is copied to host memory first. One that cannot be
    written is said at the next line of the history and ends the run."""
    hang_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds a distributed process waits for the others before the job ends."""

    def resolved_checkpoint_every(self, steps: int) -> int:
        return self.checkpoint_every or max(50, steps // 20)

    def resolved_log_every(self, steps: int) -> int:
        return self.log_every or max(1, min(50, steps // 1000))
