"""`--dry-run`: what running an experiment would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_config.cli.plan_page import plan_lines
from mm_config.cli.sections import sections
from mm_config.npu.exporting import check_environment, variables_of
from mm_config.options.run_options import RunOptions
from mm_config.rules.sampling import idle_settings
from mm_config.rules.wording import counted
from mm_config.running.runners import check_carried_out, finished_run, runner_of
from mm_config.runs.folder import resumed
from mm_config.schema.decorator import tag_of
from mm_config.schema.evolve import get
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.specs.infer import InferSpec


def dry_run_lines(spec: RootSpec, options: RunOptions, world_size: int) -> list[str]:
    """The ids, what would run and where, what it depends on, and the plan.

    Raises:
        UserError: The runner can't do all that the spec says, or the environment says something else.
    """
    check_carried_out(spec)
    check_environment(spec)
    facts = {
        "experiment": f"{spec.name} ({tag_of(spec)} spec)",
        "spec": spec_hash(spec),
        "exact": exact_hash(spec),
        "runner": f"{runner_of(spec).value} on {counted(world_size, 'rank')}",
        "run folder": f"a new one in {options.runs_dir / spec.name}",
    }
    if (earlier := resumed(spec, options)) is not None:
        facts["run folder"] = f"{earlier.path}, continued"
    if (finished := finished_run(spec, options.runs_dir)) is not None:
        would = "would be reported" if options.if_needed else "--if-needed would report it"
        facts["equal run"] = f"{finished} has finished; {would}, if its content is equal"
    if variables := variables_of(spec):
        facts["exports"] = " ".join(f"{name}={text}" for name, text in variables.items())
    if isinstance(spec, InferSpec) and not spec.samples.prompts:
        facts["videos"] = "none: spec.samples.prompts is empty, so this run would end at once"
    lines = ["dry run: nothing is changed", *(f"  {name:<11} {fact}" for name, fact in facts.items())]
    if isinstance(spec, InferSpec) and (idle := list(idle_settings(spec, spec.samples.requests or None))):
        lines.extend(["", "said in vain", *(f"  {one}" for one in idle)])
    if dependencies := dict(_dependencies(spec, options.runs_dir)):
        width = max(map(len, dependencies.values()))
        lines.extend(["", "needs the outcome of"])
        lines.extend(f"  {state.ljust(width)}  {path}" for path, state in dependencies.items())
    return [*lines, "", *plan_lines(spec, world_size)]


def _dependencies(spec: RootSpec, runs_dir: Path, above: str = "spec") -> Iterator[tuple[str, str]]:
    """The specs whose outcome this one uses, innermost first, with the run that has them."""
    built = "it would run first" if get(spec, "runtime.build_missing") else "this run would end at once"
    for section in sections(spec):
        if section.by_hash:
            path = section.path.replace("spec", above, 1)
            finished = finished_run(section.value, runs_dir)
            if finished is None:
                yield from _dependencies(section.value, runs_dir, path)
            yield path, f"{spec_hash(section.value)[:12]}  {finished or f'no finished run; {built}'}"
