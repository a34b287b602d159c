"""What files contradict of each other, and MindSpeed-MM's known contradictions.

Two keys that are read as one field disagree by themselves, see `readings`; here is what no field says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from mm_config.importing.mindspeed.boundaries import NEAR
from mm_config.importing.mindspeed.files import Files, is_count
from mm_config.importing.mindspeed.keys import (
    DATA,
    ENVIRONMENT,
    FLAG,
    FSDP2,
    INFERENCE,
    LAYERZERO,
    MODEL,
    PRE,
    TOOLS,
)
from mm_config.importing.nodes import as_in_file
from mm_config.importing.readings import Because, Reading, said
from mm_config.importing.verdict import Verdict
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.train import TrainSpec

_FILE_FLAGS = {
    "--mm-model": (MODEL, INFERENCE),
    "--mm-data": (DATA,),
    "--mm-tool": (TOOLS,),
    "--fsdp2-config-path": (FSDP2,),
    "--layerzero-config": (LAYERZERO,),
}
_ITS_OWN = ("predictor.dtype", "predictor.model_type", "ae.enable_tiling")
"""Keys that training and generation may have differently."""
_IMAGES = (Conditioning.FIRST_FRAME, Conditioning.FIRST_AND_LAST_FRAME)


def named_files(files: Files) -> Iterator[Reading]:
    """Files that the script names, beside those that were given."""
    for flag, kinds in _FILE_FLAGS.items():
        fact = files.fact(FLAG, flag)
        if fact is None:
            continue
        given = next((one.source.file.name for one in files.facts if one.source.kind in kinds), None)
        named = PurePosixPath(str(fact.value)).name
        if given is None:
            yield said(Verdict.DERIVED, fact, f"names {named}, which was not given to this import")
        elif named != given:
            yield _conflict(fact, f"names {named}, but {given} was given to this import")


def disagreements(files: Files, spec: TrainSpec | InferSpec) -> Iterator[Reading]:
    """What does not fit together in the files, or not with the spec that was made of them."""
    yield from _conditioning(files, spec)
    yield from _data_seed(files, spec)
    yield from _attention_mask(files)
    if isinstance(spec, TrainSpec):
        yield from _patches(files)
        yield from _features(files, spec)
        yield from _generation_differs(files, spec)
        yield from _launched(files, spec)
    else:
        yield from _generation(files, spec)


def _conflict(about: Because, text: str) -> Reading:
    return said(Verdict.CONFLICT, about, text)


def _conditioning(files: Files, spec: TrainSpec | InferSpec) -> Iterator[Reading]:
    kind, given = files.kind, spec.model.conditioning
    images, clean = given is not Conditioning.TEXT, given is Conditioning.CLEAN_FIRST_FRAME
    holds = f"predictor.model_type makes the network one of {given.value}, and that holds"
    task, dual = files.fact(kind, "task"), files.fact(kind, "dual_image")
    if task is not None and task.value in ("t2v", "i2v") and (task.value == "i2v") is not images:
        yield _conflict(task, holds)
    if dual is not None and dual.value is not (given is Conditioning.FIRST_AND_LAST_FRAME):
        yield _conflict(dual, holds)
    processor = files.fact(kind, "ae.i2v_processor.processor_id")
    expected = "wan_ti2v_processor" if clean else "wan_i2v_processor"
    if processor is not None and images and processor.value != expected:
        yield _conflict(processor, f"conditioning {given.value} is prepared by {expected}")
    tiling = files.fact(kind, "ae.i2v_processor.i2v_vae_encode_tiling")
    tiled = files.raw(kind, "ae.enable_tiling", False)
    if tiling is not None and isinstance(tiling.value, bool) and tiling.value is not tiled:
        text = f"ae.enable_tiling is {as_in_file(tiled)}, and that holds for given frames here"
        yield _conflict(tiling, text)
    separated = files.fact(kind, "predictor.seperated_timestep")
    if separated is not None and separated.value is True and not clean:
        text = (
            "gives a first frame timestep 0 that model_type leaves noisy; here its tokens have the clip's "
            "timestep"
        )
        yield _conflict(separated, text)
    elif separated is not None and separated.value is not True and clean:
        text = "conditioning clean_first_frame gives the first frame's tokens timestep 0, and that holds"
        yield _conflict(separated, text)
    expand = files.fact(kind, "pipeline_config.expand_timesteps")
    if expand is not None and expand.value is not clean:
        yield _conflict(expand, f"follows from conditioning here, which is {given.value}")


def _data_seed(files: Files, spec: TrainSpec | InferSpec) -> Iterator[Reading]:
    fact, own = files.fact(DATA, f"{PRE}.seed"), files.fact(FLAG, "--seed")
    if fact is not None and own is not None and not files.generation and str(fact.value) != str(own.value):
        yield _conflict(fact, f"--seed is {as_in_file(own.value)}, and that is the spec's one seed")


def _attention_mask(files: Files) -> Iterator[Reading]:
    if not files.holds("cp"):
        return
    mask = files.fact(FLAG, "--attention-mask-type")
    text = "every token sees every other here; with context parallelism causal masks made broken videos there"
    if mask is None:
        yield _conflict("--attention-mask-type", f"is missing, and its default is causal: {text}")
    elif mask.value == "causal":
        yield _conflict(mask, text)


def _patches(files: Files) -> Iterator[Reading]:
    names = ("bridge_patch", "get_dist_model_load_from_pt")
    patches = [fact for name in names if (fact := files.fact(MODEL, f"patch.{name}")) and fact.value is True]
    if len(patches) == 2:
        text = (
            "bridge_patch and get_dist_model_load_from_pt replace one function (get_model); which of them "
            "wins "
            "differs from process to process"
        )
        yield from (_conflict(fact, text) for fact in patches)
    muon = files.fact(MODEL, "patch.muon_optimizer")
    if muon is not None and muon.value is True and files.raw(FLAG, "--optimizer", "adam") != "muon":
        yield _conflict(muon, "--optimizer muon is missing: AdamW trained")


def _features(files: Files, spec: TrainSpec) -> Iterator[Reading]:
    fact = files.fact(DATA, "dataset_param.dataset_type")
    if fact is None:
        return
    flags = [files.raw(MODEL, f"load_{name}_features") for name in ("video", "text")]
    if any(flag is not None and flag is not (fact.value == "feature") for flag in flags):
        kinds = [name for name, flag in zip(("video", "text"), flags, strict=True) if flag is True]
        loaded = f"{' and '.join(kinds)} features" if kinds else "no features"
        made = "None" if spec.data.precomputed is None else "PrecomputedSpec(...)"
        yield _conflict(fact, f"model.json loads {loaded}; the spec has data.precomputed = {made}")


def _generation_differs(files: Files, spec: TrainSpec) -> Iterator[Reading]:
    """An inference file that is given beside a training, key by key."""
    boundary = files.fact(INFERENCE, "boundary_ratio")
    own = spec.diffusion.boundary
    theirs = None if boundary is None or not isinstance(boundary.value, float) else boundary.value
    if boundary is not None and theirs is not None and own is not None and abs(theirs - own) > NEAR:
        yield _conflict(boundary, f"training has {own} between its experts, which this import takes")
    for fact, row in files.rows.items():
        if row.kind != INFERENCE or fact.path in _ITS_OWN:
            continue
        other = files.fact(MODEL, fact.path)
        shared = fact.path.startswith(("predictor.", "ae.", "text_encoder."))
        if shared and other is not None and other.value != fact.value:
            text = f"{other.place} says {as_in_file(other.value)} for training, which this import takes"
            yield _conflict(fact, text)


def _launched(files: Files, spec: TrainSpec) -> Iterator[Reading]:
    if files.fact(FLAG, "--load") is not None and files.fact(FLAG, "--no-load-optim") is None:
        text = (
            "is missing: there the optimizer's state goes on where LOAD_PATH holds one; here a run starts "
            "from "
            "weights alone, and `--resume` goes on"
        )
        yield _conflict("--no-load-optim", text)
    sharded = files.fact(FLAG, "--use-torch-fsdp2")
    connections = files.fact(ENVIRONMENT, "CUDA_DEVICE_MAX_CONNECTIONS")
    if sharded is not None and connections is not None and str(connections.value) == "1":
        yield _conflict(connections, "MindSpeed-MM's FSDP2 stops where it is 1")
    if files.has(FSDP2) and not files.holds("fsdp2"):
        yield _conflict("--use-torch-fsdp2", "is missing in the script: the FSDP2 YAML was never read")
    interval = files.fact(FLAG, "--save-interval")
    every, steps = spec.checkpoint.every_steps, spec.schedule.steps
    if interval is not None and is_count(every) and every > steps:
        text = f"checkpoint.every_steps = {every}, but there are {steps} steps: only the last one is saved"
        yield _conflict(interval, text)
    plain = files.fact(FLAG, "--bf16") is not None and files.fact(FLAG, "--downcast-to-bf16") is None
    if sharded is not None and plain:
        text = (
            "with FSDP2 MindSpeed-MM's own examples give --downcast-to-bf16 instead; here "
            "precision.compute "
            "says it"
        )
        yield _conflict("--bf16", text)


def _generation(files: Files, spec: InferSpec) -> Iterator[Reading]:
    boundary = files.fact(INFERENCE, "boundary_ratio")
    if boundary is not None and spec.model.conditioning in _IMAGES and spec.boundary == 0.875:
        text = (
            "the experts of I2V are trained to part at 0.358 of the index axis, sigma 0.89966, and "
            "officially at "
            "0.9; 0.875 is T2V's, and boundary = 0.875 holds here as the file says"
        )
        yield _conflict(boundary, text)
    own, top = files.fact(INFERENCE, "predictor.dtype"), files.raw(INFERENCE, "dtype")
    if own is not None and top is not None and own.value != top:
        yield _conflict(own, f"dtype is {as_in_file(top)}, and that holds")
    scale = files.fact(INFERENCE, "pipeline_config.vae_scale_factor_spatial")
    stride = getattr(spec.autoencoder, "spatial_stride", None)
    if scale is not None and scale.value != stride:
        yield _conflict(scale, f"the autoencoder's spatial_stride is {stride}")
