"""The text forms of environment variables: values to text, and text to values or to what is wrong with it.

Readers raise ValueError with what is allowed, or UserError with a problem for each option that is wrong.
Ranges are those of the spec's fields; only those of options are checked here.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean
from mm_config.specs.npu import Affinity, NpuAffinitySpec, NpuAllocatorSpec, NpuCoresSpec, PageSize

E = TypeVar("E", bound=enum.Enum)


@attrs.frozen
class Form:
    """One way to write values as text."""

    read: Callable[[str], Any]
    """The value of a text."""
    write: Callable[[Any], str]
    """The text of a value."""


def words(meanings: Mapping[str, Any]) -> Form:
    """One of some words, each with a value."""

    def read(text: str) -> Any:
        if text not in meanings:
            raise ValueError(f"must be {' or '.join(meanings)}, got {text!r}{did_you_mean(text, meanings)}")
        return meanings[text]

    return Form(read, lambda value: next(word for word, one in meanings.items() if one == value))


def choice(kind: type[E]) -> Form:
    """The values of an enum."""
    return words({member.value: member for member in kind})


def _whole(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,20}", text):
        raise ValueError(f"must be a whole number, got {text!r}")
    return int(text)


def _real(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{0,20}\.?[0-9]{1,30}(e-?[0-9]{1,3})?", text):
        raise ValueError(f"must be a number, got {text!r}")
    return float(text)


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch("[0-9]{1,20}(,[0-9]{1,20})*", text):
        raise ValueError(f"must be whole numbers with commas between and no spaces, got {text!r}")
    return tuple(map(int, text.split(",")))


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


WHOLE = Form(_whole, str)
REAL = Form(_real, repr)
TEXT = Form(_text, str)
NUMBERS = Form(_numbers, lambda value: ",".join(map(str, value)))
DIGIT_SWITCH = words({"0": False, "1": True})
LOWER_SWITCH = words({"false": False, "true": True})
PYTHON_SWITCH = words({"False": False, "True": True})

_ALLOCATOR: Mapping[str, Form] = {
    "expandable_segments": PYTHON_SWITCH,
    "max_split_size_mb": WHOLE,
    "garbage_collection_threshold": REAL,
    "base_addr_aligned_kb": WHOLE,
    "page_size": choice(PageSize),
    "large_segment_size_mb": WHOLE,
    "roundup_power2_divisions": WHOLE,
    "multi_stream_lazy_reclaim": PYTHON_SWITCH,
    "pinned_use_background_threads": PYTHON_SWITCH,
    "pinned_mem_register": PYTHON_SWITCH,
    "pin_memory_expandable_segments": PYTHON_SWITCH,
}
"""The options of the allocator; their names are those of the spec's fields."""
_RENAMED = {"segment_size_mb": "large_segment_size_mb"}
"""Names that torch_npu still reads and warns of."""


def _read_allocator(text: str) -> NpuAllocatorSpec:
    if "[" in text:
        raise ValueError(
            "has one roundup_power2_divisions for each size, which can't be said here; give one number"
        )
    given: dict[str, Any] = {}

    def read(name: str, value: str) -> None:
        if name in _RENAMED:
            raise ValueError(f"{name} is deprecated; write {_RENAMED[name]}")
        if name not in _ALLOCATOR:
            known = f"; it has {', '.join(_ALLOCATOR)}"
            raise ValueError(f"has no option {name!r}{did_you_mean(name, _ALLOCATOR) or known}")
        _add(given, name, _ALLOCATOR[name], value)

    wrong = _wrong_options(text, read)
    try:
        allocator = NpuAllocatorSpec(**given)
    except UserError as error:
        raise UserError((*wrong, *error.problems)) from None
    if wrong:
        raise UserError(wrong)
    return allocator


ALLOCATOR = Form(_read_allocator, lambda allocator: ",".join(_written(allocator, _ALLOCATOR)))

_MODES = words({"0": Affinity.OFF, "1": Affinity.COARSE, "2": Affinity.FINE})
_AFFINITY = {"force": DIGIT_SWITCH, "npu_affine": DIGIT_SWITCH, "bind_irq": DIGIT_SWITCH}


def _read_affinity(text: str) -> NpuAffinitySpec:
    mode, comma, options = text.partition(",")
    given: dict[str, Any] = {}
    cores: list[NpuCoresSpec] = []

    def read(name: str, value: str) -> None:
        if number := re.fullmatch("npu([0-9]{1,20})", name):
            ends = re.fullmatch("([0-9]{1,20})-([0-9]{1,20})", value)
            if ends is None:
                raise ValueError(f"npu{int(number[1])} must be a range of cores such as 0-7, got {value!r}")
            cores.append(NpuCoresSpec(npu=int(number[1]), first=int(ends[1]), last=int(ends[2])))
        elif name not in _AFFINITY:
            known = "; it has force, npu_affine, bind_irq and npu0, npu1, ..."
            raise ValueError(f"has no option {name!r}{did_you_mean(name, _AFFINITY) or known}")
        else:
            _add(given, name, _AFFINITY[name], value)

    wrong = _wrong_options(options, read) if comma else []
    try:
        given["mode"] = _MODES.read(mode)
    except ValueError as error:
        wrong.insert(0, Problem("the mode", str(error)))
    if wrong:
        raise UserError(wrong)
    return NpuAffinitySpec(**given, cores=tuple(cores))


def _write_affinity(affinity: NpuAffinitySpec) -> str:
    assert affinity.mode is not None
    cores = (f"npu{one.npu}:{one.first}-{one.last}" for one in affinity.cores)
    return ",".join((_MODES.write(affinity.mode), *_written(affinity, _AFFINITY), *cores))


AFFINITY = Form(_read_affinity, _write_affinity)


def _written(options: object, forms: Mapping[str, Form]) -> list[str]:
    """Those options that say something, as `name:value`."""
    given = ((name, form, getattr(options, name)) for name, form in forms.items())
    return [f"{name}:{form.write(value)}" for name, form, value in given if value is not None]


def _wrong_options(text: str, read: Callable[[str, str], None]) -> list[Problem]:
    """Reads each `name:value` of a text; returns what is wrong with them."""
    wrong: list[Problem] = []
    for part in text.split(","):
        name, colon, value = part.partition(":")
        try:
            if not name or not colon:
                raise ValueError(f"expected name:value with commas between, got {part!r}")
            read(name, value)
        except ValueError as error:
            wrong.append(Problem("", str(error)))
    return wrong


def _add(given: dict[str, Any], name: str, form: Form, text: str) -> None:
    if name in given:
        raise ValueError(f"{name} is given twice")
    try:
        given[name] = form.read(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
