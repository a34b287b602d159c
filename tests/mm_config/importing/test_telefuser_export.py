"""Specs become TeleFuser's dumps and come back; what a dump can't say is told."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from experiments import wan22_high, wan22_t2v
from mm_config import rules
from mm_config.cli.app import app
from mm_config.importing.telefuser import import_dump
from mm_config.importing.telefuser.export import export
from mm_config.importing.telefuser.families import KNOWN, Known
from mm_config.importing.telefuser.networks import MODULES
from mm_config.importing.telefuser.table import CALL, rows_of
from mm_config.options.locations import Location, Locations
from mm_config.schema.diff import diff
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get, replace
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode, CompileSpec
from mm_config.specs.serving import (
    FeatureCacheSpec,
    GuidanceMode,
    QuantFormat,
    QuantizationSpec,
    Residency,
    SparseAttentionSpec,
    SparsePattern,
)
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from tests.mm_config import strategies

DATA = Path(__file__).parent / "data"
NAMES = st.from_regex(r"[a-z]{1,6}(/[a-z0-9._-]{0,6}[a-z0-9])?", fullmatch=True)


def read_back(text: str, folder: Path) -> InferSpec:
    file = folder / "dump.json"
    file.write_text(text, "utf-8")
    return import_dump(file)[0]


@st.composite
def sayable(draw: st.DrawFn, known: Known) -> dict[str, Any]:
    """Values that a dump can say, by canonical path, for a family with its official weights."""
    one = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    sparse = draw(st.none() | st.builds(SparseAttentionSpec, pattern=st.just(SparsePattern.RADIAL),
        dense_steps=st.integers(0, 4), dense_layers=st.integers(0, 30), block_size=st.integers(1, 256),
        decay_factor=st.floats(0.1, 9)) | st.builds(SparseAttentionSpec, pattern=st.just(SparsePattern.LOCAL),
        window=st.integers(1, 99), dense_steps=st.integers(0, 4)))  # fmt: skip
    dtype, device = one(Dtype.BFLOAT16, *Dtype), one("cuda", "cuda", "cpu", "npu")
    attention = [impl for impl in AttentionImpl if impl.name not in ("AUTO", "REFERENCE", "NPU")]
    if dtype is Dtype.FLOAT32 or device != "cuda":
        attention = [AttentionImpl.SDPA]
    if sparse is not None:
        attention = [AttentionImpl.AUTO] + [AttentionImpl.SAGE] * (len(attention) > 1)
    format = one(*QuantFormat)
    block = {"MXFP8": 32, "MXFP6": 32, "MXFP4": 32, "NVFP4": 16}.get(format.name)
    # All parts of condition_embedder together come back as one.
    modules = [name for name in MODULES.values() if "image" not in name and "time_proj" not in name]
    chosen = draw(st.permutations(modules))[: draw(st.integers(1, 5))]
    quantization = QuantizationSpec(
        format=format,
        modules=one(("*",), ("blocks.*",), tuple(chosen)),
        skip=one((), ("proj_out", "condition_embedder", "patch_embedding"), ("proj_out", "blocks.3")),
        group_size=block,
    )
    guidance = [GuidanceMode.SEQUENTIAL] + [GuidanceMode.PARALLEL] * (not known.family.distilled)
    said: dict[str, Any] = {
        "dtype": dtype,
        "autoencoder.dtype": one(*Dtype),
        "text_encoder.dtype": one(Dtype.BFLOAT16, Dtype.FLOAT32),
        "runtime.device": device,
        "runtime.attention": one(*attention),
        "sparse_attention": sparse,
        "quantization": one(None, quantization),
        "feature_cache": one(None, FeatureCacheSpec(derivatives=draw(st.integers(0, 5)))),
        "runtime.guidance": one(*guidance),
        "runtime.residency.experts": one(*Residency),
        "runtime.residency.encoders": one(*Residency),
        "runtime.parallel.data": draw(st.integers(1, 4)),
        "runtime.parallel.timeout_seconds": draw(st.integers(1, 10**6)),
    }
    if known.family.image_encoder is not None:
        said["image_encoder.dtype"] = one(*Dtype)
    waits = {said["runtime.residency.experts"], said["runtime.residency.encoders"]}
    if waits != {Residency.RESIDENT}:
        said["runtime.residency.pin_memory"] = draw(st.booleans())
    if Residency.LAYERWISE in waits:
        said["runtime.residency.share"] = one(0.0, 0.25, 1.0)
        said["runtime.residency.prefetch"] = draw(st.integers(0, 9))
    if draw(st.booleans()):
        said["runtime.parallel.tensor"] = one(1, 2, 4)
    else:
        said["runtime.parallel.ulysses"], said["runtime.parallel.ring"] = one(1, 2, 4), one(1, 2, 3)
        ranks = said["runtime.parallel.ulysses"] * said["runtime.parallel.ring"]
        said["runtime.parallel.fsdp"] = ranks > 1 and draw(st.booleans())
    if draw(st.booleans()):
        backend, fullgraph = one(*CompileBackend), draw(st.booleans())
        said["runtime.compile"] = CompileSpec(
            enabled=True,
            backend=backend,
            mode=one(*CompileMode) if backend is CompileBackend.INDUCTOR else CompileMode.DEFAULT,
            fullgraph=fullgraph,
            dynamic=not fullgraph and draw(st.booleans()),
        )
    if not known.family.distilled and draw(st.booleans()):
        said |= {"sampler.solver": Solver.EULER, "sampler.sigmas": SigmaTable.FULL_RANGE}
    paired = st.builds(ReleasedWeights, name=NAMES)
    low = st.none() if known.family.boundary is None else paired
    loras = st.builds(AppliedLoraSpec, high_noise=paired, low_noise=low, strength=st.floats(-2, 2))
    said["loras"] = tuple(draw(st.lists(loras, max_size=2)))
    if draw(st.booleans()):
        subfolder = one("", "vae", "transformer")
        said["autoencoder.weights"] = ReleasedWeights(name=f"own/{draw(NAMES)}", subfolder=subfolder)
    return said


def dumped(spec: InferSpec) -> Any:
    return json.loads(export(spec).text())


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.title)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_a_dump_can_say_comes_back(known: Known, data: st.DataObject, tmp_path_factory: Any) -> None:
    spec = replace(known.family.infer(), data.draw(sayable(known)))
    assume(not rules.problems(spec))
    made = export(spec)
    assert made.lost == ()
    back = read_back(made.text(), tmp_path_factory.getbasetemp())
    assert diff(spec, back) == ()
    assert export(back) == made


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.title)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_a_dump_can_t_say_is_told(known: Known, data: st.DataObject, tmp_path_factory: Any) -> None:
    start = known.family.infer(dtype=Dtype.BFLOAT16)
    spec = replace(start, data.draw(strategies.changes(start, most=3)))
    assume(not rules.problems(spec))
    try:
        made = export(spec)
    except UserError as error:
        assert all(problem.path.startswith("spec.") for problem in error.problems)
        return
    try:
        back = read_back(made.text(), tmp_path_factory.getbasetemp())
    except UserError as error:
        assert "can't be told" in str(error)
        assert not made.tells_family
        return
    assert made.tells_family
    told = {change.path for change in made.lost}
    call = rows_of(CALL)
    told |= {f"spec.{call[name].target.split(', ')[0]}" for name in made.arguments}
    for change in diff(spec, back):
        assert any(f"{change.path}.".startswith(f"{path}.") for path in told), change
    for name, value in made.arguments.items():
        if not name.startswith("tile_"):
            assert get(spec, call[name].target.split(", ")[0]) == value


def test_the_dump_of_an_experiment() -> None:
    dump = dumped(wan22_t2v.SPEC)
    assert list(dump) == [
        "version",
        "timestamp",
        "pipeline_type",
        "device",
        "torch_dtype",
        "layer1_model_definition",
        "layer2_inference_config",
    ]
    assert dump["version"] == "1.0"
    assert datetime.fromisoformat(dump["timestamp"]).year == 1970
    high, low, vae, text = dump["layer1_model_definition"]["models"]
    assert [model["class"] for model in (high, low, vae, text)] == [
        "WanModel",
        "WanModel",
        "WanVideoVAE",
        "WanTextEncoder",
    ]
    assert low["path"] == "Wan-AI/Wan2.2-T2V-A14B-Diffusers/transformer_2"
    layer2 = dump["layer2_inference_config"]
    assert set(layer2) == set(rows_of("Wan22VideoPipelineConfig"))
    for name in ("dit_high_config", "dit_low_config", "vae_config", "text_encoding_config"):
        assert set(layer2[name]) == set(rows_of("ModelRuntimeConfig")) - {"compile"}
        assert set(layer2[name]["quant_config"]) == set(rows_of("QuantConfig"))
    assert export(wan22_t2v.SPEC).text() == export(wan22_t2v.SPEC).text()


def test_paths_come_from_the_location_table(tmp_path: Path) -> None:
    spec = wan22_t2v.SPEC
    release = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    made = export(spec, Locations((Location(release, tmp_path, "--location"),)))
    paths = [model["path"] for model in json.loads(made.text())["layer1_model_definition"]["models"]]
    assert paths == [f"{tmp_path}/{part}" for part in ("transformer", "transformer_2", "vae", "text_encoder")]
    assert made.unplaced == ()
    assert not made.tells_family
    assert export(spec).unplaced == (release,)


def test_weights_without_a_release_are_told() -> None:
    for weights in (RandomWeights(seed=3), TrainedBy(spec=wan22_high.SPEC)):
        made = export(replace(wan22_t2v.SPEC, "high_noise", weights))
        assert "spec.high_noise" in {change.path for change in made.lost}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("wan22_high", "spec: is a training; TeleFuser only generates, so give an inference spec"),
        ("tiny", "spec.model: TeleFuser's pipelines know Wan's own networks alone: Wan2.1 T2V-1.3B"),
        (
            "wan22_t2v --spec.runtime.parallel.tensor 2 --spec.runtime.parallel.ulysses 2",
            "spec.runtime.parallel.tensor: TeleFuser's tensor ranks exclude ulysses and ring",
        ),
        (
            "wan22_t2v --spec.runtime.parallel.data 70000",
            "spec.runtime.parallel: makes 70000 ranks; a dump lists the device of each, at most 65536",
        ),
    ],
)
def test_what_can_t_be_exported(target: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *fields = target.split()
    assert app(["export", "telefuser", f"experiments/{name}.py", *fields]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(told)


def test_the_verb_writes_a_new_file_and_tells_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dump.json"
    words = ["export", "telefuser", "experiments/wan22_t2v.py", "--spec.steps", "30"]
    assert app(words) == 0
    printed = capsys.readouterr()
    assert app([*words, "--out", str(out)]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == ("", printed.err)
    assert out.read_text("utf-8") == printed.out
    first, *lost = printed.err.splitlines()
    assert "num_inference_steps=30, sigma_shift=12.0, cfg_scale_high=4.0, cfg_scale_low=3.0" in first
    assert "boundary=0.875" in first
    assert "lost: spec.runtime.guidance = batched; the dump says sequential" in lost
    assert lost[-1].startswith("no path: the dump names Wan-AI/Wan2.2-T2V-A14B-Diffusers instead")
    assert app([*words, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"{out}: exists and is not overwritten; name another file\n"


def test_the_verb_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["export", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: mm export telefuser TARGET")
    for words, told in (([], "got none"), (["telefusr"], "got 'telefusr'; did you mean telefuser?")):
        assert app(["export", *words]) == 2
        assert told in capsys.readouterr().err
    assert app(["export", "telefuser"]) == 2
    assert "expected telefuser TARGET, got telefuser" in capsys.readouterr().err
    assert app(["export", "telefuser", "experiments/wan22_t2v.py", "--location", "x=/y"]) == 2
    assert capsys.readouterr().err == "--location: the spec names nothing 'x'\n"


ODD = [None, True, -1, 0, 3, 10**30, 1e300, 0.5, "", "x", "cuda", "FP8", [], [1], ["a"], {}, {"a": 1}, [[]]]


def mutated(text: str, dice: random.Random) -> str:
    """A dump with a value or key exchanged, or with characters struck, doubled or exchanged."""
    if dice.random() < 0.6:
        root: Any = json.loads(text)
        for _ in range(dice.randint(1, 2)):
            at = root
            while True:
                keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
                key: Any = dice.choice(keys)
                if isinstance(at[key], (dict, list)) and at[key] and dice.random() < 0.9:
                    at = at[key]
                    continue
                break
            if isinstance(at, dict) and dice.random() < 0.3:
                value = at.pop(key)
                if dice.random() < 0.7:
                    at[dice.choice([key[:-1], f"{key}s", key.upper(), dice.choice(keys)])] = value
            else:
                at[key] = json.loads(json.dumps(dice.choice(ODD)))
        return json.dumps(root, indent=1)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(text))
        middle = dice.choice(["", text[place] * 2, dice.choice('{}[],:"\\/0a-\n\x00\u00e9'), "..."])
        text = text[:place] + middle + text[place + 1 :]
    return text


@pytest.mark.parametrize(("name", "count"), [("telefuser_seed", 1600), ("telefuser_wan22", 400)])
def test_mutated_dumps_are_told_by_file_line_and_key(name: str, count: int, tmp_path: Path) -> None:
    text = (DATA / f"{name}.json").read_text("utf-8")
    file = tmp_path / "dump.json"
    refused = 0
    for number in range(count):
        dump = mutated(text, random.Random(f"{name} {number}"))
        file.write_text(dump, "utf-8")
        try:
            spec, report = import_dump(file)
        except UserError as error:
            refused += 1
            for problem in error.problems:
                assert re.fullmatch(rf"{re.escape(str(file))}:\d+", problem.path), (number, problem)
                if _is_json(dump):
                    assert re.match(r"[\w.\[\]\"\\/:{},' -]+: ", problem.message), (number, problem)
        else:
            assert rules.problems(spec) == []
            assert list(report.lines("x.py"))
    assert count // 2 < refused < count


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
