"""Hashes of the experiments and the fields of the classes may change only on purpose."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mm_config import exact_hash, spec_hash
from mm_config.schema.fields import ABSENT, info_of, spec_fields, wire_name
from mm_config.stored.structuring import known_specs

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parents[1] / "experiments"
GOLDEN = HERE / "golden.txt"
BIRTHS = HERE / "births.txt"


def experiment_names() -> list[str]:
    return sorted(path.stem for path in EXPERIMENTS.glob("*.py") if path.stem != "__init__")


def test_hashes_of_the_experiments_are_the_golden_ones(update: bool) -> None:
    lines = []
    for name in experiment_names():
        spec = importlib.import_module(f"experiments.{name}").SPEC
        lines.append(f"{name} {spec_hash(spec)} {exact_hash(spec)}\n")
    if update:
        GOLDEN.write_text("".join(lines))
    golden = GOLDEN.read_text().splitlines(keepends=True)
    assert golden == lines, "an experiment's hashes changed; if that is meant, run pytest --update"


def own_classes() -> dict[str, type[Any]]:
    return {tag: cls for tag, cls in known_specs().items() if cls.__module__.startswith("mm_config.")}


def read_births() -> dict[str, list[str]]:
    lines = (line.split() for line in BIRTHS.read_text().splitlines())
    return {tag.removesuffix(":"): fields for tag, *fields in lines}


def birth_complaint(tag: str, cls: type[Any], births: dict[str, list[str]]) -> str | None:
    """What to do about a class whose fields are not those of its birth, or None."""
    infos = {wire_name(attribute): info_of(attribute) for attribute in spec_fields(cls)}
    if tag not in births:
        return f"{tag}: a new class; record its fields with pytest --update"
    for name, info in infos.items():
        if name not in births[tag] and info.neutral is ABSENT:
            return (
                f"{tag}.{name} was added after the birth of {cls.__name__}: declare "
                f"field(..., neutral=<the value that reproduces the behaviour before it existed>); "
                f"then no stored hash changes. Never add it to {BIRTHS.name}."
            )
        if name in births[tag] and info.neutral is not ABSENT:
            return f"{tag}.{name} is a field of birth and is always emitted: it can't have a neutral value"
    if gone := [name for name in births[tag] if name not in infos]:
        return f"{tag}: {gone} went away; bump the class's schema, write migrate(), and edit {BIRTHS.name}"
    return None


def test_fields_added_after_a_class_was_born_have_a_neutral_value(update: bool) -> None:
    classes = own_classes()
    births = read_births() if BIRTHS.exists() else {}
    if update:
        for tag in classes.keys() - births.keys():
            births[tag] = [
                wire_name(attribute)
                for attribute in spec_fields(classes[tag])
                if info_of(attribute).neutral is ABSENT
            ]
        BIRTHS.write_text("".join(f"{tag}: {' '.join(births[tag])}\n" for tag in sorted(births)))
    complaints = [birth_complaint(tag, cls, births) for tag, cls in classes.items()]
    complaints += [f"{tag}: the class went away" for tag in births if tag not in classes]
    assert not any(complaints), "\n".join(filter(None, complaints))


def test_a_new_field_without_neutral_value_is_refused_with_what_to_do() -> None:
    births = read_births()
    births["adamw"].remove("eps")
    complaint = birth_complaint("adamw", own_classes()["adamw"], births)
    assert complaint is not None and "adamw.eps" in complaint and "neutral=" in complaint


def test_importing_every_experiment_imports_no_tensor_library() -> None:
    script = (
        "import importlib, json, sys\n"
        f"for name in {experiment_names()!r}: importlib.import_module('experiments.' + name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(json.loads(result.stdout))
    assert "experiments.tiny" in imported
    assert imported.isdisjoint(
        {"torch", "numpy", "transformers", "diffusers", "av", "tyro", "sqlalchemy", "rich"}
    )
