"""The same fact said twice, differently, and MindSpeed-MM's known contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import TypeAlias

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.boundaries import NEAR
from mm_config.importing.mindspeed.clips import cleans_web_texts
from mm_config.importing.mindspeed.data_rows import PRE
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.nodes import as_in_file
from mm_config.importing.verdict import Verdict
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.train import TrainSpec

_FILE_FLAGS = {
    "--mm-model": ("model.json", "inference_model.json"),
    "--mm-data": ("data.json",),
    "--mm-tool": ("tools.json",),
    "--fsdp2-config-path": ("fsdp2.yaml",),
    "--layerzero-config": ("layerzero.yaml",),
}
INFERENCE = "inference_model.json"
_ITS_OWN = ("predictor.dtype", "predictor.model_type", "ae.enable_tiling")
"""Keys that training and generation may have differently."""
_IMAGES = (Conditioning.FIRST_FRAME, Conditioning.FIRST_AND_LAST_FRAME)

Conflicts: TypeAlias = "Iterator[tuple[Fact | str | None, str]]"
"""What is contradicted, a fact or the name of a missing key, and how."""


def tell_conflicts(book: Book, spec: TrainSpec | InferSpec, kind: str) -> None:
    """Marks contradictions.

    Args:
        book: The facts.
        spec: What was made of them.
        kind: The file of the network.
    """
    own = _training(book, spec) if isinstance(spec, TrainSpec) else _generation(book, spec)
    found = (_named_files(book), _model_types(book, spec, kind), _seeds(book), own, _attention_mask(book))
    for about, text in chain.from_iterable(found):
        if isinstance(about, str):
            book.say(Verdict.CONFLICT, about, text)
        else:
            book.mark(about, Verdict.CONFLICT, text)


def _named_files(book: Book) -> Conflicts:
    for flag, kinds in _FILE_FLAGS.items():
        fact = book.fact(FLAG, flag)
        given = next((one.source.file.name for one in book.facts if one.source.kind in kinds), None)
        if fact is None:
            continue
        named = PurePosixPath(str(fact.value)).name
        if given is None:
            book.mark(fact, Verdict.DERIVED, f"names {named}, which was not given to this import")
        elif named != given:
            yield fact, f"names {named}, but {given} was given to this import"


def _model_types(book: Book, spec: TrainSpec | InferSpec, kind: str) -> Conflicts:
    given = spec.model.conditioning
    images = given is not Conditioning.TEXT
    task, dual = book.fact(kind, "task"), book.fact(kind, "dual_image")
    if task is not None and task.value in ("t2v", "i2v") and (task.value == "i2v") is not images:
        yield task, f"predictor.model_type makes the network one of {given.value}, and that holds"
    if dual is not None and dual.value is not (given is Conditioning.FIRST_AND_LAST_FRAME):
        yield dual, f"predictor.model_type makes the network one of {given.value}, and that holds"
    processor = book.fact(kind, "ae.i2v_processor.processor_id")
    expected = "wan_ti2v_processor" if given is Conditioning.CLEAN_FIRST_FRAME else "wan_i2v_processor"
    if processor is not None and images and processor.value != expected:
        yield processor, f"conditioning {given.value} is prepared by {expected}"
    tiling = book.fact(kind, "ae.i2v_processor.i2v_vae_encode_tiling")
    given_tiling = book.raw(kind, "ae.enable_tiling", False)
    if tiling is not None and isinstance(tiling.value, bool) and tiling.value is not given_tiling:
        yield tiling, f"ae.enable_tiling is {as_in_file(given_tiling)}, and that holds for given frames here"
    separated = book.fact(kind, "predictor.seperated_timestep")
    clean = given is Conditioning.CLEAN_FIRST_FRAME
    if separated is not None and separated.value is not clean:
        if separated.value is True:
            text = (
                "gives a first frame timestep 0 that model_type leaves noisy; here its tokens have the "
                "clip's timestep"
            )
        else:
            text = "conditioning clean_first_frame gives the first frame's tokens timestep 0, and that holds"
        yield separated, text
    expand = book.fact(kind, "pipeline_config.expand_timesteps")
    if expand is not None and expand.value is not clean:
        yield expand, f"follows from conditioning here, which is {given.value}"


def _seeds(book: Book) -> Conflicts:
    keys = ((FLAG, "--seed"), ("data.json", f"{PRE}.seed"), (INFERENCE, "pipeline_config.seed"))
    seeds = [fact for key in keys if (fact := book.fact(*key)) is not None]
    if len({str(fact.value) for fact in seeds}) > 1:
        first = seeds[-1] if book.generation else seeds[0]
        for fact in seeds:
            if fact is not first:
                yield fact, f"{first.path} is {as_in_file(first.value)}, and that is the spec's one seed"


def _training(book: Book, spec: TrainSpec) -> Conflicts:
    patches = [
        book.fact("model.json", f"patch.{name}") for name in ("bridge_patch", "get_dist_model_load_from_pt")
    ]
    if all(fact is not None and fact.value is True for fact in patches):
        for fact in patches:
            yield (
                fact,
                "bridge_patch and get_dist_model_load_from_pt replace one function (get_model); which of "
                "them wins differs from process to process",
            )
    yield from _features(book, spec)
    yield from _captions(book)
    yield from _generation_differs(book, spec)
    if book.fact(FLAG, "--load") is not None and book.fact(FLAG, "--no-load-optim") is None:
        yield (
            "--no-load-optim",
            "is missing: there the optimizer's state goes on where LOAD_PATH holds one; here a run starts "
            "from weights alone, and `--resume` goes on",
        )
    sharded = book.fact(FLAG, "--use-torch-fsdp2")
    connections = book.fact("environment variable", "CUDA_DEVICE_MAX_CONNECTIONS")
    if sharded is not None and connections is not None and str(connections.value) == "1":
        yield connections, "MindSpeed-MM's FSDP2 stops where it is 1"
    if book.has("fsdp2.yaml") and not book.conditions["fsdp2"]:
        yield "--use-torch-fsdp2", "is missing in the script: the FSDP2 YAML was never read"
    interval = book.fact(FLAG, "--save-interval")
    if interval is not None and spec.checkpoint.every_steps > spec.schedule.steps:
        yield (
            interval,
            f"checkpoint.every_steps = {spec.checkpoint.every_steps}, but there are {spec.schedule.steps} "
            "steps: only the last one is saved",
        )
    if (
        sharded is not None
        and book.fact(FLAG, "--bf16") is not None
        and book.fact(FLAG, "--downcast-to-bf16") is None
    ):
        yield (
            "--bf16",
            "with FSDP2 MindSpeed-MM's own examples give --downcast-to-bf16 instead; here precision.compute "
            "says it",
        )
    muon = book.raw("model.json", "patch.muon_optimizer")
    if muon is True and book.raw(FLAG, "--optimizer", "adam") != "muon":
        yield book.fact("model.json", "patch.muon_optimizer"), "--optimizer muon is missing: AdamW trained"


def _generation_differs(book: Book, spec: TrainSpec) -> Conflicts:
    """An inference file that is given beside a training, key by key."""
    for fact in book.facts:
        if fact.source.kind != INFERENCE:
            continue
        other = book.fact("model.json", fact.path)
        shared = fact.path.startswith(("predictor.", "ae.", "text_encoder.")) and fact.path not in _ITS_OWN
        if (
            fact.path == "boundary_ratio"
            and isinstance(fact.value, float)
            and spec.diffusion.boundary is not None
        ):
            if abs(fact.value - spec.diffusion.boundary) > NEAR:
                yield (
                    fact,
                    f"training has {spec.diffusion.boundary} between its experts, which this import takes",
                )
        elif shared and other is not None and other.value != fact.value:
            yield fact, f"{other.place} says {as_in_file(other.value)} for training, which this import takes"


def _features(book: Book, spec: TrainSpec) -> Conflicts:
    fact = book.fact("data.json", "dataset_param.dataset_type")
    if fact is None:
        return
    flags = [book.raw("model.json", f"load_{name}_features") for name in ("video", "text")]
    features = fact.value == "feature"
    if any(flag is not None and flag is not features for flag in flags):
        yield (
            fact,
            f"model.json loads {_loaded(flags)}; the spec has data.precomputed = "
            f"{'None' if spec.data.precomputed is None else 'PrecomputedSpec(...)'}",
        )


def _captions(book: Book) -> Conflicts:
    """Without methods MindSpeed-MM's own dataset cleans captions by `clean_caption`."""
    methods = "dataset_param.text_preprocess_methods"
    named = any(book.has("data.json", f"{methods}{below}") for below in (".", "[]"))
    if named or not cleans_web_texts(book):
        return
    text = (
        "clean_caption is MindSpeed-MM's default, which lower-cases captions and strips Chinese ones, and so "
        "does data.captions.cleaning = web_without_cjk; web keeps them, and None cleans as Wan's code"
    )
    fact = book.fact("data.json", methods)
    yield (methods, f"is missing: {text}") if fact is None else (fact, text)


def _loaded(flags: list[object]) -> str:
    kinds = [name for name, flag in zip(("video", "text"), flags, strict=True) if flag is True]
    return f"{' and '.join(kinds)} features" if kinds else "no features"


def _generation(book: Book, spec: InferSpec) -> Conflicts:
    boundary = book.fact(INFERENCE, "boundary_ratio")
    if spec.model.conditioning in _IMAGES and spec.boundary == 0.875:
        yield (
            boundary,
            "the experts of I2V are trained to part at 0.358 of the index axis, sigma 0.89966, and "
            "officially at 0.9; 0.875 is T2V's, and boundary = 0.875 holds here as the file says",
        )
    own = book.fact(INFERENCE, "predictor.dtype")
    top = book.raw(INFERENCE, "dtype")
    if own is not None and top is not None and own.value != top:
        yield own, f"dtype is {as_in_file(top)}, and that holds"
    scale = book.fact(INFERENCE, "pipeline_config.vae_scale_factor_spatial")
    stride = spec.autoencoder.spatial_stride
    if scale is not None and scale.value != stride:
        yield scale, f"the autoencoder's spatial_stride is {stride}"


def _attention_mask(book: Book) -> Conflicts:
    if not book.conditions["cp"]:
        return
    mask = book.fact(FLAG, "--attention-mask-type")
    text = "every token sees every other here; with context parallelism causal masks made broken videos there"
    if mask is None:
        yield "--attention-mask-type", f"is missing, and its default is causal: {text}"
    elif mask.value == "causal":
        yield mask, text
