"""Specs in files: the full payload `{"v": 1, "kind": <tag>, "spec": {...}}` as JSON or YAML.

`{"v": 1, "kind": <tag>, "layers": {<layer>: {...}}}` says the same with the fields by their layers, and may
hold `requests` that stand beside the spec. Both are read wherever a spec's file is.
"""

from __future__ import annotations

import enum
import json
import math
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs

from mm_config.durable.reading import MOST_BYTES, read_bytes
from mm_config.durable.writing import write_text
from mm_config.schema.decorator import schema_of, tag_of
from mm_config.schema.errors import Problem, SpecError, UserError, gathering
from mm_config.schema.fields import field_types, spec_fields, wire_name
from mm_config.schema.identity import FORMAT_VERSION, JSON, declared, exact_hash, payload_hash, spec_hash
from mm_config.schema.types import class_of, expect_spec, in_error, is_dict, is_list, is_spec, is_tuple
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.layers import apart, together
from mm_config.stored.parsing import checked, core_dumper, parse_json, parse_yaml, shown_key
from mm_config.stored.structuring import class_of_tag, known_specs, older_schemas, structure

_FORMATS: dict[str, Literal["json", "yaml"]] = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
_MAX_YAML_BYTES = 2**21
"""PyYAML needs some seconds for a megabyte."""


def to_payload(spec: Any) -> dict[str, JSON]:
    """The full payload of a spec: every field of every role, nested specs with their tags."""
    return {"v": FORMAT_VERSION, "kind": tag_of(spec), "spec": _wire_fields(spec)}


def to_layers(spec: Any, requests: Sequence[GenerationRequest] = ()) -> dict[str, JSON]:
    """The full payload of a spec by its layers, with the requests that stand beside it.

    Raises:
        TypeError: The spec's class has no layers.
    """
    layers = apart(_wire_fields(spec), class_of(spec))
    payload: dict[str, JSON] = {"v": FORMAT_VERSION, "kind": tag_of(spec), "layers": layers}
    if requests:
        payload["requests"] = [_wire_fields(one) for one in requests]
    return payload


def from_payload(payload: Any, where: str = "spec") -> Any:
    """The spec of a payload.

    Fields that were added to a class after the payload was written take their neutral value, specs of
    an older schema are migrated step by step; beyond that nothing is filled in, converted or ignored.

    Args:
        payload: Plain data, as `to_payload` or `to_layers` gives it and JSON or YAML carry it.
        where: The first segment of the paths in error messages.

    Raises:
        SpecError: Everything that is wrong with the payload.
    """
    return _with_requests(payload, where)[0]


def _with_requests(payload: Any, where: str) -> tuple[Any, tuple[GenerationRequest, ...]]:
    root, problems = checked(payload)
    if not is_dict(root):
        raise SpecError(
            problems or f"expected a mapping with the keys v, kind and spec, got {in_error(root)}"
        )
    content = "layers" if "layers" in root else "spec"
    needed = ("v", "kind", content)
    allowed = (*needed, "requests") if content == "layers" else needed
    unknown = [key for key in root if key not in allowed]
    problems += [Problem(shown_key(key), f"unknown key; allowed: {', '.join(allowed)}") for key in unknown]
    problems += [Problem(key, "missing") for key in needed if key not in root]
    if "v" in root and (type(root["v"]) is not int or root["v"] != FORMAT_VERSION):
        newer = type(root["v"]) is int and root["v"] > FORMAT_VERSION
        message = f"the format's version must be {FORMAT_VERSION}, got {in_error(root['v'])}"
        problems.append(Problem("v", message + ("; a newer one needs a newer mm_config" if newer else "")))
    spec, requests = None, list[GenerationRequest]()
    if "kind" in root and content in root:
        with gathering(problems):
            cls = class_of_tag(root["kind"], known_specs().values(), "kind")
            spec = structure(_fields(root, cls), cls, where)
    if not is_list(beside := root.get("requests", [])):
        problems.append(Problem("requests", f"expected a list, got {in_error(beside)}"))
    else:
        for index, one in enumerate(beside):
            with gathering(problems):
                requests.append(structure(one, GenerationRequest, f"requests.{index}"))
    if problems:
        raise SpecError(dict.fromkeys(problems))
    return spec, tuple(requests)


def _fields(root: dict[str, Any], cls: type[Any]) -> Any:
    return together(root["layers"], cls) if "layers" in root else root["spec"]


@attrs.frozen
class StoredIdentity:
    """What a stored payload is called today, whatever it was called when it was written."""

    payload_hash: str
    """Of the payload as it was written; changes only when the file is edited."""
    spec_hash: str
    """Of the spec that it loads as, under the classes of today."""
    exact_hash: str
    """The same, with the execution fields."""
    migrated: tuple[str, ...]
    """Canonical paths of the specs in it that were written under an older schema.

    Where there are none, both hashes equal those that were recorded when the payload was written;
    otherwise the recorded ones are older names of the same spec.
    """
    spec: Any
    """What it loads as."""


def stored_identity(payload: Any) -> StoredIdentity:
    """The hashes of a stored payload.

    Args:
        payload: Plain data, as `to_payload` or `to_layers` gives it and JSON or YAML carry it.

    Raises:
        SpecError: Everything that is wrong with the payload.
    """
    spec, (root, _) = from_payload(payload), checked(payload)
    payload = {"v": root["v"], "kind": root["kind"], "spec": _fields(root, class_of(spec))}
    older = older_schemas(payload["spec"], payload["kind"], "spec")
    return StoredIdentity(payload_hash(payload), spec_hash(spec), exact_hash(spec), tuple(older), spec)


def load(path: str | os.PathLike[str]) -> Any:
    """The spec in a `.json`, `.yaml` or `.yml` file.

    Raises:
        UserError: The file can't be read or parsed, or its payload is wrong; each problem names the
            file and the canonical path inside it.
    """
    return load_with_requests(path)[0]


def load_with_requests(path: str | os.PathLike[str]) -> tuple[Any, tuple[GenerationRequest, ...]]:
    """The spec in a file, and the requests that stand beside it there.

    Raises:
        UserError: As `load`.
    """
    file = Path(path)
    with _naming(file):
        return _with_requests(_parsed(file), "spec")


def load_identity(path: str | os.PathLike[str]) -> StoredIdentity:
    """The spec in a file, with its hashes of today.

    Raises:
        UserError: As `load`.
    """
    file = Path(path)
    with _naming(file):
        return stored_identity(_parsed(file))


def dumps(
    spec: Any,
    format: Literal["json", "yaml"] = "json",
    by_layers: bool = False,
    requests: Sequence[GenerationRequest] = (),
) -> str:
    """The text of a spec's file, fields in order of declaration, ending with a newline.

    By layers, and with requests beside it, it is that of `to_layers`.
    """
    payload = to_layers(spec, requests) if by_layers or requests else to_payload(spec)
    if format == "json":
        return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    import yaml

    return yaml.dump(payload, Dumper=core_dumper(), sort_keys=False, allow_unicode=True, width=math.inf)


def dump(
    spec: Any,
    path: str | os.PathLike[str],
    by_layers: bool = False,
    requests: Sequence[GenerationRequest] = (),
) -> None:
    """Writes a spec to a `.json`, `.yaml` or `.yml` file, whole or not at all; `dumps` says what it holds.

    Raises:
        TypeError: It is no spec, or one without layers that is to be written by them.
        UserError: The file's ending is none of these, or it can't be written.
    """
    expect_spec("spec", spec)
    file = Path(path)
    with _naming(file):
        text = dumps(spec, _format_of(file), by_layers, requests)
        try:
            write_text(file, text)
        except OSError as error:
            raise UserError(f"can't be written: {error.strerror}") from None


def _parsed(file: Path) -> Any:
    format = _format_of(file)
    try:
        text = read_bytes(file, MOST_BYTES if format == "json" else _MAX_YAML_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"is no UTF-8 text (byte {error.start})") from None
    return parse_json(text) if format == "json" else parse_yaml(text)


@contextmanager
def _naming(file: Path) -> Generator[None]:
    """Puts the file's name before the path of every problem."""
    try:
        yield
    except UserError as error:
        raise type(error)(
            Problem(f"{file}: {problem.path}" if problem.path else str(file), problem.message)
            for problem in error.problems
        ) from None


def _format_of(file: Path) -> Literal["json", "yaml"]:
    if file.suffix not in _FORMATS:
        raise UserError(f"a spec's file ends in {', '.join(_FORMATS)}")
    return _FORMATS[file.suffix]


def _wire_fields(spec: Any) -> dict[str, JSON]:
    fields: dict[str, JSON] = {} if schema_of(spec) == 1 else {"~schema": schema_of(spec)}
    types = field_types(class_of(spec))
    for attribute in spec_fields(class_of(spec)):
        value = declared(getattr(spec, attribute.name), types[attribute.name])
        fields[wire_name(attribute)] = wire_value(value)
    return fields


def wire_value(value: Any) -> JSON:
    """A field's value as files have it."""
    if is_spec(value):
        return {"~": tag_of(value), **_wire_fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if is_tuple(value):
        return [wire_value(item) for item in value]
    return value
