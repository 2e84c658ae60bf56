"""Loads a script of tools/ as a module."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from repo_tree import ROOT


def is_current(name: str) -> bool:
    """Whether the files that a generator writes are what it would write now."""
    return bool(load(name).main(["--check"]) == 0)


def load(name: str) -> ModuleType:
    """The script `tools/<name>.py`; loaded once."""
    module_name = f"readahead_tools_{name}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    return sys.modules[module_name]
