"""Number formats of the forward and backward pass; weights stay float32."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from maekit.errors import RunError


class Precision:
    """One of fp32, bf16, fp16, with the loss scaling that fp16 needs."""

    def __init__(self, name: str, device: torch.device) -> None:
        """name: auto (bf16 on a GPU that has it, else fp16 on a GPU, else fp32), fp32, bf16, fp16."""
        if name == "auto":
            name = "fp32"
            if device.type == "cuda":
                name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        if name == "fp16" and device.type == "mps":
            raise RunError("precision fp16: needs loss scaling, which MPS has not; take bf16 or fp32")
        self.name = name
        self._device = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    @property
    def dtype(self) -> torch.dtype | None:
        """What products are computed in; None: float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self._device, self.dtype)

    def state(self) -> dict[str, float]:
        """What a checkpoint must keep."""
        return dict(self.scaler.state_dict())

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave; a state of another precision is left aside."""
        if self.scaler.is_enabled() and state:
            self.scaler.load_state_dict(state)
