"""The specs that can be run, hashed and stored on their own."""

from __future__ import annotations


class RootSpec:
    """A spec that can be run, hashed and stored on its own (TrainSpec, InferSpec)."""

    __slots__ = ()

    name: str
