"""What builds is found by a tag that one distribution registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.schema import UserError
from mm_models.registered import builder_of, tags_of

TAKEN = {
    "mm.networks": ("wan-transformer", "mm-models"),
    "mm.autoencoders": ("dct-autoencoder", "mm-models"),
    "mm.text_encoders": ("umt5-text-encoder", "mm-models"),
    "mm.image_encoders": ("clip-image-encoder", "mm-models"),
    "mm.optimizers": ("adamw", "mm-train"),
    "mm.stages": ("lanczos-upscale", "mm-infer"),
}


def test_a_tag_of_two_distributions_is_refused_by_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scratch-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch\nVersion: 1.0\n")
    entries = (f"[{group}]\n{tag} = json:dumps\n" for group, (tag, _) in TAKEN.items())
    (folder / "entry_points.txt").write_text("".join(entries))
    monkeypatch.syspath_prepend(tmp_path)
    for group, (tag, owner) in TAKEN.items():
        with pytest.raises(UserError) as caught:
            builder_of(group, tag)
        told = f"{tag!r} of {group} is registered by {owner} and scratch; uninstall all of them but one"
        assert str(caught.value) == told
        assert tags_of(group).count(tag) == 1
