"""`mm plan`: what a spec costs, before anything runs."""

from __future__ import annotations

import attrs

from mm_config.cli.line_targets import read_whole_targets
from mm_config.cli.parse import unsaid_ranks
from mm_config.cli.plan_page import plan_lines, search_lines
from mm_config.cli.scan import JSON, RUNS_DIR, WORLD_SIZE, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP, Target
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_json, print_lines
from mm_config.planning.devices import NAMES
from mm_config.planning.layouts import search
from mm_config.planning.plan import plan
from mm_config.schema.errors import Problem, UserError
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"expected a number above 0 and at most 1, such as 0.45, got {text!r}")
    return share


DEVICE = Option(
    "--device", "Hold the plan against a device: does it fit, how long does it take.", "NAME", NAMES
)
EFFICIENCY = Option(
    "--efficiency",
    "Model FLOPs per second as a share of the device's peak (MFU), above 0 and at most 1 (default: what "
    "was published for the device).",
    "SHARE",
    read=_share,
)
STRENGTH = Option(
    "--strength",
    "Count a video that starts from a given one: the share of the denoising steps that it goes through.",
    "X",
    read=_share,
)
SEARCH = Option(
    "--search", "List the layouts of this many ranks that fit, by predicted time (on h200 by default)."
)
USAGE = Usage(
    "mm plan TARGET [--device NAME] [--world-size N] [--efficiency SHARE] [--strength X] [--search] [--json] "
    "[--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Count parameters, tokens, FLOPs and bytes per rank of a spec.",
    "Counts parameters, tokens, floating-point operations, bytes and traffic per rank from the spec alone; "
    "nothing is built or loaded. Of a video, and of what else names requests, the costliest request is "
    "counted. With a device it says whether that fits and, if not, the smallest changes that make it fit."
    f"\n\n{TARGET_HELP}",
    (DEVICE, WORLD_SIZE, EFFICIENCY, STRENGTH, SEARCH, JSON, RUNS_DIR),
    (
        ("mm plan experiments/tiny_high.py", "what one rank needs"),
        ("mm plan experiments/tiny_high.py --device h200 --world-size 8", "does it fit on eight H200"),
        ("mm plan experiments/tiny_high.py --world-size 8 --search", "how to spread it"),
        ("mm plan experiments/tiny_high.py --spec.micro-batch-size 4", "with smaller passes"),
    ),
)


def print_plan(line: CommandLine) -> int:
    """Prints what the target needs."""
    world_size, efficiency = line.value(WORLD_SIZE, 1), line.value(EFFICIENCY)
    searches, device = line.has(SEARCH), line.value(DEVICE)
    # What is searched need not be legal as it stands.
    asked = () if searches or line.has(WORLD_SIZE) else (unsaid_ranks,)
    (target,) = read_whole_targets(line, None if searches else world_size, *asked)
    spec, request = target.spec, _costliest(target, line.value(STRENGTH))
    if searches and line.has(STRENGTH):
        raise UserError(Problem(STRENGTH.flag, "has no part in a search of layouts; leave it out"))
    if searches:
        found = search(spec, world_size, device or "h200", efficiency)
        if line.has(JSON):
            print_json(attrs.asdict(found))
        else:
            print_lines(search_lines(found))
        return 0
    if efficiency and not device:
        raise UserError(Problem(EFFICIENCY.flag, "is a share of a device's peak; name one by --device"))
    if line.has(JSON):
        print_json(plan(spec, world_size, device, efficiency, request).to_json())
    else:
        print_lines(plan_lines(spec, world_size, device, efficiency, request))
    return 0


def _costliest(target: Target, strength: float | None) -> GenerationRequest | None:
    """The request that takes the most work; None where the spec stands alone."""
    requests = target.requests
    if strength is not None:
        if not isinstance(target.spec, InferSpec):
            raise UserError(Problem(STRENGTH.flag, "is a generation's; a training has none"))
        alone = (GenerationRequest(prompt="any"),)
        requests = tuple(attrs.evolve(one, strength=strength) for one in requests or alone)
    return max(requests, key=lambda one: plan(target.spec, request=one).work.step_flops, default=None)


VERB = Verb(USAGE, print_plan)
