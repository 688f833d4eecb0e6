"""Packages that are called as the verb of their name: `maekit.data` is a package and `maekit data`."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    @property
    def __signature__(self) -> Any:
        return _function(self).__signature__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _function(self)(*arguments, **named)


def _function(package: ModuleType) -> Any:
    return getattr(import_module("maekit.verbs"), package.__name__.rpartition(".")[2])


def may_be_called(package: str) -> None:
    """Make an imported package the function of `maekit.verbs` that has its name, as well."""
    sys.modules[package].__class__ = _Verb
