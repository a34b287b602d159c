"""How large the objects of a pickle are, told from its opcodes, before anything is made of it.

A pickle of 200 bytes can hold a tuple of two tuples, and so on fifty times: it takes no memory, for equal
parts are one object, but looking up its hash, as a key of a dictionary, takes years.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import Any, BinaryIO

MOST_PARTS = 10**8
"""Of one object, with what is in it counted each time that it is there; a hash of so many takes seconds."""
_MARK: list[int] = []
_CHANGING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that change what lies below what they take."""


class TooLarge(ValueError):
    """A file that grows beyond what it has when it is read."""


def require_saved(file: BinaryIO) -> None:
    """Looks through a file that torch.save wrote: a zip file, or five pickles and numbers before torch 1.6.

    Raises:
        TooLarge: An object in it has more than `MOST_PARTS`, or it is compressed.
        Exception: It is damaged, which shows in many ways.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(5):
            require_small(file)
        return
    with zipfile.ZipFile(file) as opened:
        for member in opened.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise TooLarge(f"holds {member.filename}, which is compressed; torch.save compresses nothing")
            if member.filename.endswith("/data.pkl"):
                require_small(io.BytesIO(opened.read(member)))


def require_small(pickle: BinaryIO) -> None:
    """Looks through one pickle, up to its end.

    Raises:
        TooLarge: An object in it has more than `MOST_PARTS`.
        Exception: It is no pickle.
    """
    stack: list[list[int]] = []
    memo: dict[Any, list[int]] = {}
    for opcode, argument, _ in pickletools.genops(pickle):
        name = opcode.name
        if name == "MARK":
            stack.append(_MARK)
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]
        else:
            taken = _taken(stack, opcode)
            parts = sum(one[0] for one in taken)
            if name in _CHANGING:
                taken[0][0] = parts
                stack.append(taken[0])
            else:
                stack += [[1 + parts] for _ in opcode.stack_after]
            if parts > MOST_PARTS:
                raise TooLarge(f"holds an object of more than {MOST_PARTS:,} parts")


def _taken(stack: list[list[int]], opcode: Any) -> list[list[int]]:
    """What an opcode takes off the stack, from below, those above the last mark too where it wants them."""
    below = opcode.stack_before
    above: list[list[int]] = []
    if pickletools.markobject in below:
        below = below[: below.index(pickletools.markobject)]
        while (one := stack.pop()) is not _MARK:
            above.append(one)
    start = len(stack) - len(below)
    if start < 0:
        raise ValueError("it is no pickle")
    found = stack[start:]
    del stack[start:]
    return found + above
