"""The content that a spec's fields name here: asked of its package, held against what names meant before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from mm_config.console.output import say
from mm_config.content.inputs import Input, in_turn, last_in_turn
from mm_config.content.parts import told_differences
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import Run
from mm_config.runs.index import open_index
from mm_config.runs.inputs import name_key, read_inputs
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.installed import loaded, registered
from mm_config.schema.root import RootSpec

GROUP = "mm.contents"
"""Functions `(spec, options) -> inputs by canonical path` of packages, by the wire tag of the spec."""
_SHOWN = 5


def inputs_here(spec: RootSpec, options: RunOptions) -> dict[str, Input] | None:
    """What a run of the spec would be made of here; None where no package tells it for such specs.

    Raises:
        UserError: Something that the spec names is not here.
    """
    entry = registered(GROUP, tag_of(spec))
    return None if entry is None else loaded(entry, entry.value)(spec, options)


def checked_inputs(
    inputs: Mapping[str, Input],
    options: RunOptions,
    earlier: Mapping[str, Input] | None = None,
    run: Run | None = None,
) -> dict[str, Input]:
    """The inputs of a run that starts or goes on, where they are what is known by their names.

    Args:
        inputs: What the spec's fields name here.
        options: Where runs are, and whether another content is accepted or a run only repeated.
        earlier: What the run that goes on was made of until now; None for one that starts, and for one that
            did not record it, which is said.
        run: The run that goes on; what it called by a name is no other run's.

    Returns:
        The same; of a run that goes on with another content, that of both.

    Raises:
        UserError: A name met another content before, or the run that goes on did; what differs is said.
    """
    if options.repeats:
        return dict(inputs)  # What differs from the repeated run is told by who repeats it.
    if run is not None and earlier is None:
        say(f"what {run.record.path} was made of is not recorded: whether it is the same can't be checked")
    changes = tuple(_changes(inputs, options, earlier, run))
    if changes and not options.accept_content:
        advice = f"give it another revision, or take it as it is by {options.name_of('accept_content')}"
        raise UserError(Problem(path, f"{message}; {advice}") for path, message in changes)
    for path, message in changes:
        say(f"{path}: {message}")
    if earlier is None:
        return dict(inputs)
    return {
        **earlier,
        **{path: in_turn(earlier[path], one) for path, one in inputs.items() if path in earlier},
    }


def changes_since(folder: Path, inputs: Mapping[str, Input], options: RunOptions) -> Iterator[str]:
    """What of the inputs is not what a run was made of, a text for each."""
    then = read_inputs(folder)
    if then is None:
        yield "its content is not recorded"
        return
    for path, one in inputs.items():
        if path not in then:
            yield f"{path} is new"
        elif then[path].digest != one.digest:
            yield f"{path} is other content: {content_changes(then[path], one, options.contents_dir)}"
        elif then[path].order_key != one.order_key:
            yield f"{path} has its samples in another order"


def content_changes(old: Input, new: Input, contents_dir: Path) -> str:
    """What differs between two contents, the first few things and how many more."""
    told = told_differences(contents_dir, old.digest, new.digest, _SHOWN)
    return f"digest {new.digest[:12]}, was {old.digest[:12]}" if told is None else told


def _changes(
    inputs: Mapping[str, Input], options: RunOptions, earlier: Mapping[str, Input] | None, run: Run | None
) -> Iterator[tuple[str, str]]:
    """Path and message of each input that is not what it was."""
    index = open_index(options.runs_dir)
    own = "" if run is None else run.record.uid
    for path, one in inputs.items():
        if earlier is not None:
            old, where = last_in_turn(earlier[path]) if path in earlier else one, "when the run was started"
        elif one.name is None or one.pinned or (known := index.newest_named(name_key(one), own)) is None:
            continue
        else:
            old, where = attrs.evolve(one, digest=known[1]), f"in {known[0].path}"
        if old.digest != one.digest:
            what = "the content" if one.name is None else f"{one.name} (revision {one.revision})"
            told = content_changes(old, one, options.contents_dir)
            yield path, f"{what} is not what it was {where}: {told}"
