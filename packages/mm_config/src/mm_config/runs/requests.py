"""What a run made in place of the videos that its spec asks for: requests.json beside spec.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm_config.content.inputs import Input, file_input
from mm_config.runs.record import REQUESTS_FILE, RunRecord
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError, concerning
from mm_config.schema.identity import spec_hash
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.files import stored_identity, to_payload
from mm_config.stored.json_files import read_json, write_json


def requests_hash(requests: Sequence[GenerationRequest]) -> str:
    """sha256 over the spec_hashes of the requests, in their order, each on a line."""
    return hashlib.sha256("".join(f"{spec_hash(one)}\n" for one in requests).encode()).hexdigest()


def request_inputs(requests: Sequence[GenerationRequest]) -> dict[str, Input]:
    """What stored requests add to what a run is made of: what each asks for, and the files that it names.

    Raises:
        UserError: A file can't be read.
    """
    found: dict[str, Input] = {}
    for index, request in enumerate(requests):
        at = f"requests.{index}"
        found[at] = Input(digest=spec_hash(request), kind=tag_of(request))
        for name in ("image", "last_image", "video"):
            if file := getattr(request, name):
                with concerning(f"{at}.{name}"):
                    found[f"{at}.{name}"] = file_input(Path(file))
    return found


def write_requests(folder: Path, requests: Sequence[GenerationRequest]) -> None:
    """Stores the requests in a run folder, each as its full payload."""
    write_json(folder / REQUESTS_FILE, {"requests": [to_payload(one) for one in requests]})


def stored_requests(folder: Path, record: RunRecord) -> tuple[GenerationRequest, ...] | None:
    """The requests that stand beside a run's spec; None where the run made the videos of its spec.

    Raises:
        UserError: They can't be read, or are not those that the run was started with.
    """
    if record.requests_hash is None:
        return None
    file = folder / REQUESTS_FILE
    content: Any = read_json(file).get("requests")
    try:
        found = [stored_identity(one) for one in content]
    except (TypeError, LookupError, UserError) as error:
        raise UserError(Problem(str(file), f"holds no requests: {error}")) from error
    requests = tuple(one.spec for one in found)
    if not all(isinstance(one, GenerationRequest) for one in requests):
        raise UserError(Problem(str(file), "holds no requests but other specs"))
    # Of requests of an older schema, the hash of today is another.
    if requests_hash(requests) != record.requests_hash and not any(one.migrated for one in found):
        raise UserError(Problem(str(file), "is not what the run was started with: it was edited"))
    return requests
