"""How long a run is, in what batches it takes its images, and the learning rate's course."""

import math
from dataclasses import dataclass

from maekit.config import OptimizerConfig, ScheduleConfig
from maekit.errors import UsageError

_EARLY_WARMUP = 1e-6  # that the warmup of an early cosine has on top, as a share of the peak


@dataclass(frozen=True)
class Plan:
    """A run in numbers, known before its first step."""

    images: int
    """In the source."""
    steps: int
    """Optimizer steps."""
    warmup_steps: int
    batch_size: int
    """Images a step, over all devices."""
    micro_batch: int
    """Images a device and pass."""
    world_size: int
    lr: float
    """Peak learning rate."""
    min_lr: float
    course: str = "cosine"
    milestones: tuple[int, ...] = ()
    """Steps from which on the rate is multiplied by gamma, once more at each."""
    gamma: float = 1.0
    cooldown: float = 0.0
    """The share of the steps in which the rate falls to zero, the last ones."""
    batch_because: str = ""
    """Why the batch is another than the recipe's; empty where it is the recipe's or was given."""

    @classmethod
    def of(
        cls,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        images: int,
        world_size: int = 1,
        batch_because: str = "",
    ) -> "Plan":
        """Raises RunError for a batch that does not divide, UsageError for a run without a step.

        A schedule without a batch is planned with its recipe's.
        """
        plan = cls(
            images=images, steps=schedule.total_steps(images), warmup_steps=schedule.warmup_steps(images),
            batch_size=schedule.images_a_step, micro_batch=schedule.micro_batch(world_size), world_size=world_size,
            lr=optimizer.actual_lr(schedule.images_a_step), min_lr=schedule.min_lr, course=schedule.course,
            milestones=schedule.milestone_steps(images), gamma=schedule.gamma,
            cooldown=schedule.cooldown if schedule.course.endswith("cooldown") else 0.0, batch_because=batch_because,
        )  # fmt: skip
        if plan.steps < 1:
            raise UsageError("schedule: this run would take no optimizer step; give more --steps or --epochs")
        if plan.highest_rate == 0:
            raise UsageError(
                f"schedule: no step of this run would have a learning rate above 0 ({plan.steps} steps, "
                f"{plan.warmup_steps} of them warmup, peak {plan.lr:g}): nothing would be learned; give more --epochs "
                "or --steps, a smaller --batch-size, --schedule.warmup-epochs 0 or a --lr above 0"
            )
        return plan

    @property
    def accumulation(self) -> int:
        """Passes per device whose gradients make one step."""
        return self.batch_size // (self.world_size * self.micro_batch)

    @property
    def base_lr(self) -> float:
        """Peak learning rate per 256 images."""
        return self.lr * 256 / self.batch_size

    @property
    def highest_rate(self) -> float:
        """The highest learning rate that a step really has; below `lr` where the warmup does not end."""
        turns = (0, self.warmup_steps - 1, self.warmup_steps, self.steps - 1)
        return max(self.learning_rate(step) for step in turns if 0 <= step < self.steps)

    @property
    def level_until(self) -> int:
        """The step from which on a cooldown lets the rate fall; `steps` where there is none."""
        return max(self.warmup_steps, self.steps - round(self.cooldown * self.steps))

    def epoch(self, step: int) -> float:
        """Passes over the source after so many steps."""
        return step * self.batch_size / self.images

    def learning_rate(self, step: int) -> float:
        """Rate of step 0, 1, ..., steps - 1: linear from zero over the warmup, then as `ScheduleConfig.course` says.

        A step's rate is that of the moment at which it begins, as in arXiv 2111.06377's released code: the first step
        of a warmup has rate zero, but in an early cosine.
        """
        if self.course == "early_cosine":
            return self._early_cosine(step)
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        if self.course == "constant":
            return self.lr
        if self.course == "step":
            return self.lr * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.cooldown:
            fallen = max(0.0, (step - self.level_until) / max(1, self.steps - self.level_until))
            return self.lr * (1 - (fallen if self.course == "linear_cooldown" else math.sqrt(fallen)))
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))

    def _early_cosine(self, step: int) -> float:
        """FlyEgle/MAE-pytorch's: the cosine's angle counts all steps, its length leaves those of the warmup out."""
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps + _EARLY_WARMUP)
        length = max(1, self.steps - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / length))
