"""What a run folder says of the content that the run was made of: `inputs.json`, written at its start."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.content.inputs import Input, made_of
from mm_config.content.numerics import NUMERICS
from mm_config.schema.errors import Problem, UserError
from mm_config.stored.json_files import read_json, write_json

INPUTS_FILE = "inputs.json"
_DETAILS = {"run": str, "run_dir": str, "path": str, "order_key": str | None, "in_turn": [str]}
_INPUT = {"digest": str, "kind": str, "name": str | None, "revision": str | None, "details": _DETAILS}
_SHAPE = {"made_of": str, "spec_hash": str, "numerics": int, "inputs": {"": _INPUT}}


def write_inputs(folder: Path, spec_hash: str, inputs: Mapping[str, Input]) -> str:
    """Writes what a run is made of, and returns its digest. Raises OSError where that fails."""
    listed = {path: attrs.asdict(one) for path, one in sorted(inputs.items())}
    content: dict[str, Any] = {
        "v": 1,
        "made_of": (digest := made_of(spec_hash, inputs)),
        "spec_hash": spec_hash,
        "numerics": NUMERICS,
        "inputs": listed,
    }
    write_json(folder / INPUTS_FILE, content)
    return digest


def read_inputs(folder: Path) -> dict[str, Input] | None:
    """What a run was made of, by canonical path; None where its content was not recorded.

    Raises:
        UserError: The file is damaged, or was edited.
    """
    file = folder / INPUTS_FILE
    if not os.path.lexists(file):
        return None
    content = read_json(file, _SHAPE)
    try:
        listed: dict[str, dict[str, Any]] = content["inputs"]
        inputs = {path: Input(**one) for path, one in listed.items()}
        then, now = content["made_of"], made_of(content["spec_hash"], inputs, content["numerics"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(Problem(str(file), f"is no list of a run's inputs: {error!r}")) from error
    if then != now:
        why = f"is not what the run was made of: made_of is {now[:12]}, was {str(then)[:12]}; it was edited"
        raise UserError(Problem(str(file), why))
    return inputs


def named_contents(folder: Path) -> dict[str, str]:
    """The digest that each name met in a run, by `name_key`; none where it was not recorded."""
    try:
        inputs = read_inputs(folder) or {}
    except UserError:
        return {}
    return {name_key(one): one.digest for one in inputs.values() if one.name is not None}


def name_key(one: Input) -> str:
    """What stands in the index for a kind, a name and a revision, which may hold any character."""
    named = "\0".join((one.kind, one.name or "", one.revision or ""))
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:32]
