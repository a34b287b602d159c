"""Glob patterns over the names of modules and parameters: `blocks.*`, `blocks.{0-3,7}.attn1`, `*.bias`.

`*` is any text, `?` any character, and `{...}` one of a list of numbers, ranges and names; `{*}` is `*`.
In patterns over modules `*` and `?` stay within one part of a name, in those over parameters they cross dots.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from mm_config.schema.errors import UserError
from mm_config.specs.kinds import ModelSpec

SPELLINGS = "blocks.{0-3,7}, blocks.*.attn1.{to_q,to_k} or blocks.{*}"
MOST_NUMBERS = 10_000
"""Numbers in one range: more are never meant."""

_TOKEN = re.compile(r"[*?]+|\{[^{}]*\}|.", re.DOTALL)
_CHOICE = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_RANGE = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 100


@lru_cache(maxsize=16)
def module_names(model: ModelSpec) -> tuple[str, ...]:
    """The modules that hold parameters, directly or inside, in the network's order."""
    names: dict[str, None] = {}
    for parameter in model.parameter_shapes():
        parts = parameter.split(".")[:-1]
        names.update(dict.fromkeys(".".join(parts[:length]) for length in range(1, len(parts) + 1)))
    return tuple(names)


@lru_cache(maxsize=16)
def linear_layers(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shape of the weight, `(out, in)`, of each module whose weight is a matrix."""
    weights = {
        name.removesuffix(".weight"): shape
        for name, shape in model.parameter_shapes().items()
        if name.endswith(".weight")
    }
    return {name: shape for name, shape in weights.items() if len(shape) == 2}


@lru_cache(maxsize=16)
def module_lists(model: ModelSpec) -> frozenset[str]:
    """The modules whose children are numbered: lists, which are never called themselves."""
    children: dict[str, list[str]] = {}
    for name in module_names(model):
        parent, _, child = name.rpartition(".")
        children.setdefault(parent, []).append(child)
    return frozenset(name for name, inside in children.items() if all(map(str.isdecimal, inside)))


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name fits a pattern, part by part: `*` never crosses a dot.

    Raises:
        UserError: The pattern is malformed, see `pattern_problem`.
    """
    return _compiled(pattern, "[^.]").fullmatch(name) is not None


def matches_parameter(name: str, pattern: str) -> bool:
    """Whether a parameter's name fits a pattern: `*.bias` are the biases of all modules.

    Raises:
        UserError: The pattern is malformed, see `pattern_problem`.
    """
    return _compiled(pattern, ".").fullmatch(name) is not None


def matching(names: Iterable[str], pattern: str, *, parameters: bool = False) -> list[str]:
    """The names of modules, or of parameters, that fit a pattern, in their order.

    Raises:
        UserError: The pattern is malformed, see `pattern_problem`.
    """
    fits = _compiled(pattern, "." if parameters else "[^.]").fullmatch
    return [name for name in names if fits(name)]


def idle_choices(names: Iterable[str], pattern: str, *, parameters: bool = False) -> list[str]:
    """The items of braces with which a pattern matches no name: `30-39` of `blocks.{0-39}` for 30 blocks.

    Braces count that are a whole part of the name.

    Raises:
        UserError: The pattern is malformed, see `pattern_problem`.
    """
    fitting = [name.split(".") for name in matching(names, pattern, parameters=parameters)]
    idle: list[str] = []
    for index, part in enumerate(pattern.split(".")):
        if _CHOICE.fullmatch(part) and part != "{*}":
            used = {parts[index] for parts in fitting}
            unused = [choice for choice in _choices(part, pattern) if choice not in used]
            idle += [choice for choice in unused if not choice.isdecimal()]
            idle += _as_ranges(int(choice) for choice in unused if choice.isdecimal())
        if parameters and ("*" in part or "?" in part):
            break  # It may have crossed dots: parts behind it can't be told apart.
    return idle


def pattern_problem(pattern: str) -> str | None:
    """Why a pattern can't be read, with the accepted spellings; None where it can."""
    try:
        _compiled(pattern, ".")
    except UserError as error:
        return error.problems[0].message
    return None


def nearest(pattern: str, names: tuple[str, ...], count: int = 3) -> list[str]:
    """Patterns that match something and look most like this one; the index of a block as `*`."""
    shapes = dict.fromkeys(re.sub(r"(?<=\.)[0-9]+(?=\.|$)", "*", name, count=1) for name in names)
    return difflib.get_close_matches(pattern[:_LONGEST], shapes, count, cutoff=0.0)


@lru_cache(maxsize=256)
def _compiled(pattern: str, character: str) -> re.Pattern[str]:
    pieces: list[str] = []
    for token in _TOKEN.findall(pattern):
        if token[0] in "*?":
            # A run of both is one repetition, so that no pattern backtracks over many.
            least = token.count("?")
            pieces.append(f"{character}{{{least},}}" if "*" in token else f"{character}{{{least}}}")
        elif token == "{*}":
            pieces.append(f"{character}*")
        elif token[0] in "{}":
            pieces.append(f"(?:{'|'.join(_choices(token, pattern))})")
        else:
            pieces.append(re.escape(token))
    return re.compile("".join(pieces), re.DOTALL)


def _choices(token: str, pattern: str) -> Iterator[str]:
    if len(token) == 1:
        raise _malformed(pattern, f"{token!r} has no counterpart")
    for item in token[1:-1].split(","):
        if ends := _RANGE.fullmatch(item):
            first, last = int(ends[1]), int(ends[2])
            if not first <= last < first + MOST_NUMBERS:
                raise _malformed(pattern, f"{item!r} is no range of 1 to {MOST_NUMBERS} numbers")
            yield from map(str, range(first, last + 1))
        elif _NUMBER.fullmatch(item) or _NAME.fullmatch(item):
            yield item
        else:
            raise _malformed(pattern, f"{item!r} is no number, range or name")


def _as_ranges(numbers: Iterable[int]) -> list[str]:
    """`0-3`, `7`: numbers that follow one another, together."""
    ends: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ends and ends[-1][1] == number - 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in ends]


def _malformed(pattern: str, why: str) -> UserError:
    return UserError(f"{pattern!r} can't be read, {why}; write for example {SPELLINGS}")
