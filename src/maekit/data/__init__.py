"""Images: where they come from, how they are decoded and augmented. Called, it is the verb `maekit data`."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """`maekit.data` is this package and the function of that name."""

    @property
    def __signature__(self) -> Any:
        return import_module("maekit.verbs").data.__signature__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return import_module("maekit.verbs").data(*arguments, **named)


sys.modules[__name__].__class__ = _Verb
