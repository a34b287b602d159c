"""What two runs were made of: data and weights that are not the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm_config.content.inputs import Input
from mm_config.content.parts import told_differences
from mm_config.reproducing.difference import changed
from mm_config.runs.inputs import INPUTS_FILE, read_inputs
from mm_config.runs.provenance_diff import ORDER, OriginChange
from mm_config.runs.record import read_result
from mm_config.schema.decorator import tag_of
from mm_config.specs.weights import ReleasedWeights, TrainedBy
from mm_config.stored.json_files import read_json

_WEIGHTS = (tag_of(ReleasedWeights), tag_of(TrainedBy))
_SHOWN_DIGITS = 12
_SHOWN_PARTS = 3


def input_changes(old: Path, new: Path, contents_dir: Path) -> Iterator[OriginChange]:
    """Each input of a run that is other content in its repetition, or the same in another order of samples,
    with what of it differs.

    Of weights that trainings made, what their trainings were made of is told as well. Where a run did not
    record its inputs, the data and weights that its result names are compared.

    Args:
        old: The stored run's folder.
        new: The other run's folder.
        contents_dir: Where parts are kept, `RunOptions.contents_dir`.
    """
    before, after = read_inputs(old), read_inputs(new)
    if before is None or after is None:
        yield from _named_by_results(old, new)
        return
    numerics = [str(read_json(folder / INPUTS_FILE).get("numerics")) for folder in (old, new)]
    if numerics[0] != numerics[1]:
        yield OriginChange("numerics", *numerics)
    for path in sorted({*before, *after}):
        yield from _changes(path, before.get(path), after.get(path), contents_dir)


def _changes(path: str, old: Input | None, new: Input | None, contents_dir: Path) -> Iterator[OriginChange]:
    if path.startswith("requests.") and path.count(".") == 1:
        return  # What was asked for is given anew; the files that it names may be others.
    if old and new and old.digest == new.digest:
        if old.order_key != new.order_key:
            yield OriginChange(
                f"data {path}, {ORDER}", *(str(one.order_key)[:_SHOWN_DIGITS] for one in (old, new))
            )
        return
    kind = next(one.kind for one in (old, new) if one)
    name = f"{'weights' if kind in _WEIGHTS else 'data'} {path}"
    told = told_differences(contents_dir, old.digest, new.digest, _SHOWN_PARTS) if old and new else None
    yield OriginChange(
        name, _digest_and_run(old), _digest_and_run(new) + (f" ({told})" if told is not None else "")
    )
    runs = [Path(one.details["run_dir"]) for one in (old, new) if one and "run_dir" in one.details]
    if len(runs) == 2 and runs[0] != runs[1] and all(run.is_dir() for run in runs):
        for change in input_changes(runs[0], runs[1], contents_dir):
            yield OriginChange(f"{name}, {change.name}", change.old, change.new)


def _digest_and_run(one: Input | None) -> str:
    if one is None:
        return "none"
    run = one.details.get("run")
    return f"{one.digest[:_SHOWN_DIGITS]} of {run}" if run else one.digest[:_SHOWN_DIGITS]


def _named_by_results(old: Path, new: Path) -> Iterator[OriginChange]:
    before, after = read_result(old), read_result(new)
    if before and after:
        for change in changed(_named_by_result(before), _named_by_result(after)):
            yield OriginChange(*change)


def _named_by_result(result: dict[str, Any]) -> dict[str, str]:
    inputs = {"data digest": result["data_digest"]} if "data_digest" in result else {}
    experts: dict[str, dict[str, Any]] = result.get("experts", {})
    return inputs | {
        f"weights of {name}": str(expert["weights"])
        for name, expert in experts.items()
        if "weights" in expert
    }
