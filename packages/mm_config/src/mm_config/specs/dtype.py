"""Floating-point formats, by name: specs hold no tensor library's objects."""

import enum


class Dtype(enum.Enum):
    """A floating-point format."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
