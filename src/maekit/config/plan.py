"""Everything `maekit plan` can be told: a pretraining, and what it is to run on."""

from dataclasses import fields
from typing import Self

from maekit.config.pretrain import PretrainConfig
from maekit.config.schema import Annotated, Field, config


@config
class PlanConfig(PretrainConfig):
    """A pretraining, and what it is to run on."""

    gpus: Annotated[int, Field(ge=1)] = 1
    """GPUs that it is to run on, over all machines."""
    images: Annotated[int | None, Field(ge=1)] = None
    """Plan for this many images, in place of a SOURCE whose images are counted."""
    memory: Annotated[float | None, Field(gt=0)] = None
    """GB of memory that each GPU has: says whether the run fits, and what makes it fit. A tenth of it and 1 GB are left
    to drivers, NCCL and gaps between tensors, which is a rule of thumb."""
    rate: Annotated[float | None, Field(gt=0)] = None
    """Images a second that one GPU trains on, as stated by you. The hours follow, as if nothing were lost between
    GPUs."""
    measure: bool = False
    """Measure that rate by some passes of this run on this machine's device, and plan as if each GPU were that."""

    @classmethod
    def of(cls, pretraining: PretrainConfig) -> Self:
        """The plan of a pretraining on one GPU."""
        return cls(**{field.name: getattr(pretraining, field.name) for field in fields(PretrainConfig)})
