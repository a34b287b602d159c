"""Features that MindSpeed-MM extracted, as a folder of ours: read once, safely, and from then on checked.

Its `get_sora_feature.py` writes `data.jsonl`, whose lines name files such as `features/NAME_mp4.pt`, and in
each file the latents `video`, the text features `prompt_ids`, their `prompt_mask`, and of I2V
`i2v_clip_feature` and `i2v_vae_feature`. Its trainings unpickle these files at each draw, unchecked. They are
converted and not read in place, so that there is one way for features to be named, checked and looked up. A
converted file stands for the clip that it was made of: a manifest beside it lists it as one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.console import progress
from mm_config.content import Input, sha256_of_files
from mm_config.durable import outside, read_bytes, require_regular, staged_file
from mm_config.options import RunOptions
from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_config.specs import Conditioning, ManifestSpec, TrainSpec
from mm_data import Dataset, Shape, Store, ask, capped, prepare
from mm_models import encoder_inputs, given_latents
from mm_train.batches import latent_shape
from mm_train.features.cached import stores_of
from mm_train.features.encoding import Row, narrowed, unpadded
from mm_train.features.kinds import CONDITION, FIELDS, IMAGE, LATENTS, TEXT, encoders_of
from mm_train.features.making import ROWS_PER_SHARD, Names
from mm_train.features.precomputed import Precomputed, write_head

LIST, MANIFEST, FOLDER = "data.jsonl", "manifest.jsonl", "features"


@attrs.frozen
class Converted:
    """What became of a folder of MindSpeed-MM's."""

    features: Precomputed
    """The folder."""
    manifest: Path
    """The manifest that lists the extracted files as clips."""
    told: tuple[str, ...]
    """What a person should know of it."""


def convert(spec: TrainSpec, folder: Path, out: Path, options: RunOptions) -> Converted:
    """Converts extracted features; what is there already is not read again.

    Args:
        spec: The training that will read them: its encoders are those that made them, its shape theirs.
        folder: What MindSpeed-MM calls `save_path`, with `data.jsonl`.
        out: The folder of the features.
        options: Where releases are.

    Raises:
        UserError: Files are missing, listed twice, damaged or of another shape; all are told, the first by
            name. Or the folders can't be written.
    """
    root = _root(folder)
    manifest, lists = _manifest(root)
    extracted = ManifestSpec(name=root.resolve().name, path=str(manifest))
    dataset = prepare(extracted, cache_dir=options.cache_dir)
    kinds = encoders_of(spec)
    inputs: dict[str, Input] = encoder_inputs({FIELDS[kind]: one for kind, one in kinds.items()}, options)
    stores = stores_of(out, spec, kinds, inputs)
    contents = sha256_of_files(record.path for record in dataset.records)
    names = Names(spec.data, contents, {kind: store.made_with for kind, store in stores.items()})
    differing = _write(spec, dataset, names, stores)
    for store in stores.values():
        store.seal()
    told = [*lists]
    if differing:
        told.append(f"{counted(differing, 'caption')} came with other features again; the first are kept")
    return Converted(write_head(out, stores, (), inputs), manifest, tuple(told))


def _root(folder: Path) -> Path:
    """The folder with `data.jsonl`. Users give the folder `features` inside of it as well."""
    for root in (folder, folder.parent if folder.resolve().name == FOLDER else folder):
        if (root / LIST).is_file():
            return root
    message = f"holds no {LIST}; give the folder that MindSpeed-MM's sorafeature.save_path named"
    raise UserError(Problem(str(folder), message))


def _manifest(root: Path) -> tuple[Path, list[str]]:
    """Writes the manifest of the extracted files, and says which were found in a folder too deep or too high.

    Raises:
        UserError: Lines are wrong, or name one file: MindSpeed-MM names files by the last part of a clip's
            path, so that one of the clips has overwritten the other.
    """
    problems: list[Problem] = []
    lines: list[str] = []
    found: Counter[str] = Counter()
    nested = 0
    try:
        listed = read_bytes(root / LIST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(root / LIST), f"can't be read: {error}"[:200])) from error
    for number, text in enumerate(listed.split("\n"), 1):
        if not text.strip():
            continue
        where = f"{root / LIST}:{number}"
        try:
            name, caption = _entry(text)
            path = _place(root, name)
        except (ValueError, TypeError, RecursionError) as error:
            problems.append(Problem(where, str(error)))
            continue
        nested += path != name
        found[path] += 1
        if found[path] == 2:
            why = "is listed again: clips of one name in several folders overwrote each other's features"
            problems.append(Problem(where, f"{path} {why}"))
        lines.append(json.dumps({"path": path, "caption": caption}, ensure_ascii=False) + "\n")
    if not problems and not lines:
        problems.append(Problem(str(root / LIST), "lists no features"))
    if problems:
        raise UserError(capped(problems, str(root / LIST)))
    manifest, content = root / MANIFEST, "".join(lines)
    if manifest.exists() and manifest.read_text("utf-8") != content:
        raise UserError(Problem(str(manifest), "is there and lists something else; move it away"))
    with staged_file(manifest) as staged:
        staged.write_text(content, "utf-8")
    lie = "file lies" if nested == 1 else "files lie"
    told = [f"{nested} {lie} in another folder {FOLDER} than {LIST} says; they were found"] if nested else []
    return manifest, told


def _entry(text: str) -> tuple[str, str]:
    """The file of a line and its caption.

    Where there are several captions, none is known to be the one that was encoded: the file's name stands for
    it then.
    """
    entry = json.loads(text)
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise ValueError('expected an object with "file"')
    captions = entry.get("captions", entry.get("caption"))
    if isinstance(captions, list) and len(captions) == 1:
        (captions,) = captions
    caption = captions if isinstance(captions, str) else name
    f"{name}{caption}".encode()  # Half a surrogate pair is no character.
    return name.replace("\\", "/"), caption


def _place(root: Path, name: str) -> str:
    """Where a listed file lies, from the root on: users move `features` into another folder or out of one."""
    bare = name.removeprefix(f"{FOLDER}/")
    for place in (name, bare, f"{FOLDER}/{bare}", f"{FOLDER}/{FOLDER}/{bare}"):
        if not outside(place, root) and (root / place).is_file():
            return place
    raise ValueError(f"there is no {name[:200]!r} in {root}, nor in its folder {FOLDER}")


def _write(spec: TrainSpec, dataset: Dataset, names: Names, stores: dict[str, Store]) -> int:
    """Writes all rows, a shard's number of files at a time; returns how many captions have others as well."""
    problems: list[Problem] = []
    differing: set[str] = set()
    waiting: dict[str, dict[str, Row]] = {kind: {} for kind in stores}
    with progress("convert features", len(dataset.records), unit="file", every=128) as bar:
        for index, record in enumerate(dataset.records):
            asked = next(iter(names.variants([ask(record, spec.data, index)])))
            keys = {kind: names.of_clip(kind, asked) for kind in stores if kind != TEXT}
            keys[TEXT] = names.of_caption(record.caption)
            bar.advance(1)
            if all(key in stores[kind] for kind, key in keys.items()):
                continue
            try:
                rows = _rows(spec, record.path)
            except Exception as error:  # On damaged files torch raises nearly anything.
                why = (str(error) or type(error).__name__).splitlines()[0][:200]
                problems.append(Problem(str(record.path), f"can't be read: {why}"))
                continue
            for kind in keys.keys() & rows.keys():
                known = waiting[kind].get(keys[kind])
                if known is None and keys[kind] in stores[kind]:
                    known = stores[kind].read(keys[kind])
                if known is None:
                    waiting[kind][keys[kind]] = rows[kind]
                elif kind == TEXT and not torch.equal(known["features"], rows[kind]["features"]):
                    differing.add(record.caption)
            if len(waiting[LATENTS]) == ROWS_PER_SHARD:
                _flush(waiting, stores)
        _flush(waiting, stores)
    if problems:
        raise UserError(capped(problems, str(dataset.root)))
    return len(differing)


def _flush(waiting: dict[str, dict[str, Row]], stores: dict[str, Store]) -> None:
    for kind, rows in waiting.items():
        if rows:
            stores[kind].write(rows)
            waiting[kind] = {}


def _rows(spec: TrainSpec, path: Path) -> dict[str, Row]:
    """The rows of an extracted file by kind.

    Raises:
        ValueError, KeyError and others: It is damaged, holds more than tensors, or has another shape.
    """
    require_regular(path)
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    data = spec.data
    shape = latent_shape(spec, Shape(data.num_frames, data.height, data.width))
    latents = _of_shape(content["video"], 4, "video")
    if tuple(latents.shape) != shape:
        raise ValueError(f"video is {list(latents.shape)}, the spec's latents are {list(shape)}")
    text = _of_shape(content["prompt_ids"], 2, "prompt_ids")
    if text.shape[1] != spec.text_encoder.text_dim:
        raise ValueError(
            f"prompt_ids are {text.shape[1]} wide, the text encoder's {spec.text_encoder.text_dim}"
        )
    mask = content.get("prompt_mask")
    if mask is not None:
        text = text[: int(_of_shape(mask, 1, "prompt_mask").count_nonzero())]
    rows: dict[str, Row] = {
        LATENTS: {"latents": narrowed(latents.float())},
        TEXT: {"features": narrowed(unpadded(text.float()))},
    }
    if spec.model.conditioning is not Conditioning.TEXT:
        rows[CONDITION] = {"latents": narrowed(_condition(spec, content, latents.float()))}
    if (image := content.get("i2v_clip_feature")) is not None:
        rows[IMAGE] = {"features": _of_shape(image, 2, "i2v_clip_feature").contiguous()}
    return rows


def _condition(spec: TrainSpec, content: Mapping[str, Any], latents_CTHW: Tensor) -> Tensor:
    """Latents of the given frames, without the mask that MindSpeed-MM puts before them.

    A clean first frame is the clip's own there, and stands in no feature apart.
    """
    if spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        return latents_CTHW[:, :1].contiguous()
    whole = _of_shape(content.get("i2v_vae_feature"), 4, "i2v_vae_feature").float()
    condition = whole[-len(latents_CTHW) :].contiguous()
    stride, frames = spec.autoencoder.temporal_stride, spec.data.num_frames
    if condition.shape == latents_CTHW.shape:
        expected = given_latents(spec.model, stride, condition[None], None, frames).beside_BCTHW
        if expected is not None and torch.equal(whole, expected[0, -len(whole) :]):
            return condition
    given = spec.model.conditioning.value
    raise ValueError(f"i2v_vae_feature {list(whole.shape)} is not what conditioning {given} makes")


def _of_shape(value: Any, axes: int, name: str) -> Tensor:
    """A tensor without leading axes of length 1, or the only one of a list.

    Raises:
        ValueError: It is none.
    """
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is no tensor")
    while value.ndim > axes and value.shape[0] == 1:
        value = value[0]
    if value.ndim != axes:
        raise ValueError(f"{name} has the shape {list(value.shape)}, expected {axes} axes")
    return value
