"""Every key, flag and variable of MindSpeed-MM's Wan examples has a row, and every row leads somewhere."""

from __future__ import annotations

from pathlib import Path

from mm_config import replace
from mm_config.families import wan21
from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict
from mm_config.schema.evolve import get
from mm_config.specs.data import PrecomputedSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.npu import NpuSpec
from mm_config.specs.optim import EmaSpec, MuonSpec
from scripts.write_docs import MINDSPEED_KEYS
from tests.mm_config.importing.mindspeed_samples import SAMPLES, samples

KEYS = Path(__file__).parent / "data" / "mindspeed_keys.txt"


def keys() -> list[tuple[str, str]]:
    lines = [line for line in KEYS.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [(kind, path) for kind, path in (line.split("\t") for line in lines)]


def test_every_key_of_the_examples_has_a_row() -> None:
    assert len(keys()) == 394
    assert [key for key in keys() if TABLE.row_of(*key) is None] == []


def test_no_key_has_two_rows() -> None:
    found = [(row.kind, row.path) for row in TABLE.rows]
    assert len(found) == len(set(found))


def test_every_row_gives_a_target_or_a_reason() -> None:
    for row in TABLE.rows:
        assert row.target if row.verdict is Verdict.MAPPED else row.reason, row


def everything() -> object:
    """A training spec with all optional parts."""
    spec = base.training(wan21.I2V_14B_480P, Expert.SINGLE)
    parts = {
        "lora": LoraSpec(),
        "ema": EmaSpec(),
        "optim": MuonSpec(),
        "profiler": ProfilerSpec(),
        "memory_snapshot": MemorySnapshotSpec(),
        "data.precomputed": PrecomputedSpec(name="features"),
        "runtime.npu": NpuSpec(),
    }
    return replace(spec, parts)


def targets(row: Row, *, generation: bool) -> list[str]:
    target = row.infer if generation and row.kind == "shell flag" else row.target
    return [name.strip() for name in target.split(",") if name and not name.strip().startswith("--")]


def test_every_mapped_row_names_fields_that_there_are() -> None:
    training, generation = everything(), base.generation(wan21.I2V_14B_480P)
    mapped = [row for row in TABLE.rows if row.verdict is Verdict.MAPPED]
    assert len(mapped) > 150
    for row in mapped:
        if row.kind == "inference_model.json":
            _ = [get(generation, target) for target in targets(row, generation=True)]
            continue
        _ = [get(training, target) for target in targets(row, generation=False)]
        if row.infer:
            _ = [get(generation, target) for target in targets(row, generation=True)]


def test_samples_are_read_by_their_rows() -> None:
    sampled = [(row, sample) for row in TABLE.rows if row.read is not None for sample in samples(row)]
    assert len(sampled) > 150
    for row, sample in sampled:
        assert row.read is not None
        row.read(sample)


def test_samples_are_of_keys_that_have_a_row() -> None:
    assert all(TABLE.row_of(kind, path) for kind, paths in SAMPLES.items() for path in paths)


def test_defaults_are_read_by_their_rows() -> None:
    from mm_config.schema.fields import ABSENT

    for row in TABLE.rows:
        if row.read is not None and row.default is not ABSENT:
            row.read(row.default)


def test_the_page_of_keys_has_every_key_of_the_examples() -> None:
    page = MINDSPEED_KEYS.read_text("utf-8")
    for _, path in keys():
        assert f"`{path}`" in page
