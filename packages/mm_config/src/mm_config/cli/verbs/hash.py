"""`mm hash`: the two ids of a spec."""

from __future__ import annotations

from mm_config.cli.line_targets import read_targets
from mm_config.cli.scan import RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_lines
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.types import class_of

LAYERS = Option("--layers", "Also print an id for each layer: model, training or inference, request.")
USAGE = Usage(
    "mm hash TARGET [--layers] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Print the two ids of a spec.",
    "Prints the two ids of a spec, 64 hex digits each. `spec` changes with whatever changes the "
    "mathematics or the data order: two runs with the same one train the same thing. `exact` also "
    "changes with how it is computed: sharding, micro-batches, workers. Labels and paths change "
    f"neither.\n\n{TARGET_HELP}",
    (LAYERS, RUNS_DIR),
    (
        ("mm hash experiments/tiny_high.py", "the ids of an experiment"),
        (
            "mm hash experiments/tiny_high.py --spec.lr 1e-4",
            "the ids it would have with another learning rate",
        ),
        ("mm hash 7f3a91c2", "the full ids of a stored run"),
        ("mm hash experiments/tiny.py --layers", "which parts two specs share"),
    ),
)


def print_hashes(line: CommandLine) -> int:
    """Prints both ids of the target."""
    (spec,) = read_targets(line)
    hashes = {"spec": spec_hash(spec), "exact": exact_hash(spec)}
    if line.has(LAYERS):
        from mm_config.stored.layers import layer_hashes, layers_of

        if not layers_of(class_of(spec)):
            raise UserError(Problem(LAYERS.flag, f"a {tag_of(spec)} spec has no layers"))
        hashes |= layer_hashes(spec)
    print_lines(f"{name} {digest}" for name, digest in hashes.items())
    return 0


VERB = Verb(USAGE, print_hashes)
