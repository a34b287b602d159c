"""Features that were computed before, in a folder that the location table names.

`features.json` of the folder says which stores it has and what made each; the content's digest is that of
the keys and digests of all features, which the spec may ask for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from mm_config.content import Input, pinned
from mm_config.durable import staged_file
from mm_config.options import Locations
from mm_config.schema import Problem, UserError, tag_of
from mm_config.specs import TrainSpec
from mm_config.stored import read_json
from mm_data import Asked, Bad, Store, caption_key, captions_of, digest_of
from mm_data import writing_features as writing
from mm_train.features.kinds import (
    LATENTS,
    OF_CLIPS,
    TEXT,
    made_with,
    precomputed_kinds,
    require_equal,
    weights_field,
    weights_of,
)
from mm_train.features.making import Names, bad_clip

HEAD = "features.json"
FIELD = "spec.data.precomputed"
_SHOWN = 5


@attrs.frozen(eq=False)
class Precomputed:
    """What a folder of features holds."""

    folder: Path
    """It."""
    stores: dict[str, Store]
    """By kind."""
    bad: tuple[dict[str, str], ...]
    """Clips that could not be read: key of the latents, stage, reason."""
    weights: dict[str, Input]
    """What the encoders' weights were, by canonical path of the field; those that are known."""

    @property
    def digest(self) -> str:
        """The 64 hex digits of all features."""
        return digest_of({kind: store.digest for kind, store in self.stores.items()})

    @property
    def holds_empty_caption(self) -> bool:
        """Whether there are features of the empty caption."""
        text = self.stores.get(TEXT)
        return text is not None and caption_key(text.made_with, "") in text


def write_head(
    folder: Path, stores: Mapping[str, Store], bad: Iterable[Mapping[str, str]], inputs: Mapping[str, Input]
) -> Precomputed:
    """Writes what a folder holds, once all of it is there.

    Raises:
        UserError: It can't be written.
    """
    weights = {weights_field(kind): one for kind in stores if (one := weights_of(inputs, kind)) is not None}
    whole = Precomputed(folder, dict(stores), tuple(dict(one) for one in bad), weights)
    content = {
        "v": 1,
        "digest": whole.digest,
        "stores": {kind: store.folder.name for kind, store in stores.items()},
        "bad": whole.bad,
        "weights": {path: attrs.asdict(one) for path, one in weights.items()},
    }
    with writing(folder), staged_file(folder / HEAD) as staged:
        staged.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return whole


def read_precomputed(folder: Path) -> Precomputed:
    """What a folder holds; no feature is read.

    Raises:
        UserError: There are no features, or their head is damaged.
    """
    try:
        head = read_json(folder / HEAD)
        stores = {
            kind: Store(folder / name, read_json(folder / name / "made_with.json"))
            for kind, name in head["stores"].items()
        }
        weights = {path: Input(**one) for path, one in head["weights"].items()}
        found = Precomputed(folder, stores, tuple(head["bad"]), weights)
        whole = head["digest"] == found.digest
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        problem = f"holds no whole {HEAD} ({error}); `mm data precompute TARGET --out {folder}` writes one"
        raise UserError(Problem(str(folder), problem)) from error
    if not whole:
        problem = f"its features are not those that {HEAD} names; `mm data precompute` makes them whole again"
        raise UserError(Problem(str(folder), problem))
    return found


def located(spec: TrainSpec, locations: Locations) -> Precomputed:
    """The features that a spec names, held against its encoders.

    Raises:
        UserError: They are nowhere, damaged, lack a kind or the empty caption, or were made with another
            encoder.
    """
    before = spec.data.precomputed
    assert before is not None
    found = read_precomputed(locations.resolve(before.name))
    problems: list[Problem] = []
    for kind in sorted(precomputed_kinds(spec)):
        if kind not in found.stores:
            field = TEXT if kind == TEXT else LATENTS
            problems.append(Problem(f"{FIELD}.{field}", f"is True, but {found.folder} holds no {kind}"))
            continue
        wanted = made_with(spec, kind, None)
        made = read_json(found.stores[kind].folder / "made_with.json")
        if kind == TEXT and before.empty_caption and not found.holds_empty_caption:
            problems.append(
                Problem(
                    f"{FIELD}.empty_caption",
                    f"is True, but {found.folder} holds no features of the empty caption",
                )
            )
        try:
            require_equal(made, wanted, kind, str(found.folder))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found


def precomputed_input(spec: TrainSpec, locations: Locations, here: Mapping[str, Input]) -> dict[str, Input]:
    """What precomputed features are as inputs: themselves, and the weights that made them.

    Args:
        spec: The training.
        locations: Where they lie.
        here: What the encoders' weights are on this machine, by canonical path of the field.

    Raises:
        UserError: They are not there; the spec asks for another digest; or the weights on this machine are
            others than those that made them.
    """
    before = spec.data.precomputed
    if before is None:
        return {}
    found = located(spec, locations)
    one = Input(
        digest=found.digest,
        kind=tag_of(before),
        name=before.name,
        revision=before.revision,
        details={"path": str(found.folder.absolute())},
    )
    inputs = {FIELD: pinned(one, before.digest, FIELD)}
    for field in map(weights_field, sorted(precomputed_kinds(spec))):
        made, now = found.weights.get(field), here.get(field)
        if made is not None and now is not None and made.digest != now.digest:
            made_by = f"the features in {found.folder} were made with {made.digest[:12]}"
            raise UserError(Problem(field, f"is {now.digest[:12]} here, but {made_by}"))
        if made is not None:
            inputs[field] = made
    return inputs


def bad_clips(found: Precomputed, asks: Iterable[Asked], names: Names) -> dict[int, Bad]:
    """The clips of a dataset that could not be read when features were made, by place.

    Raises:
        UserError: Clips or captions of the dataset have no features; the first are named.
    """
    listed = {one["key"]: one for one in found.bad}
    bad: dict[int, Bad] = {}
    lacking: list[str] = []
    count = 0
    text = found.stores.get(TEXT)
    of_clips = [kind for kind in OF_CLIPS if kind in names.made_with and kind in found.stores]
    for asked in names.variants(asks):
        path = str(asked.record.path)
        if LATENTS in of_clips:
            key = names.of_clip(LATENTS, asked)
            if (one := listed.get(key)) is not None:
                bad[asked.index] = bad_clip(asked, one["stage"], one["reason"])
            elif any(names.of_clip(kind, asked) not in found.stores[kind] for kind in of_clips):
                count += 1
                lacking += [path] if len(lacking) < _SHOWN else []
                continue
        for caption in captions_of(asked.record, names.data) if TEXT in names.made_with else ():
            if text is not None and names.of_caption(caption) not in text:
                count += 1
                lacking += [f"caption {caption[:60]!r}"] if len(lacking) < _SHOWN else []
    if count:
        shown = ", ".join(lacking) + (f" and {count - len(lacking)} more" if count > len(lacking) else "")
        which = "clip or caption has" if count == 1 else "clips or captions have"
        message = f"{count} {which} no features in {found.folder}: {shown}"
        raise UserError(Problem(FIELD, f"{message}; `mm data precompute` adds them"))
    return bad
