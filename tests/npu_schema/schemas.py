"""Defines Ascend's operators in plain PyTorch, from the schemas that a torch_npu wheel has."""

from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from tests.npu_references import REFERENCES

SNAPSHOT = Path(__file__).with_name("schemas.txt")


def schemas() -> list[str]:
    """The operators' schemas without their namespace."""
    lines = SNAPSHOT.read_text("utf-8").splitlines()
    return [line.removeprefix("npu::") for line in lines if not line.startswith("#")]


def define(calls: Counter[str]) -> torch.library.Library:
    """Defines every operator; those with a reference compute, and count their calls.

    A reference is made of operations that PyTorch knows the derivatives of, so that backward passes need no
    more. Any other operator exists but has no kernel, as PyTorch says when it is called.
    """
    library = torch.library.Library("npu", "DEF")
    for schema in schemas():
        library.define(schema)
    defined = {schema.partition("(")[0] for schema in schemas()}
    for name in REFERENCES.keys() & defined:
        library.impl(name, _counted(name, calls), "CompositeImplicitAutograd")
    return library


def _counted(name: str, calls: Counter[str]) -> Callable[..., Any]:
    @wraps(REFERENCES[name])
    def reference(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return REFERENCES[name](*args, **kwargs)

    return reference
