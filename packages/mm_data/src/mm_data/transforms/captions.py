"""What the text encoder is given of a clip's captions."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.specs import CaptionChoice, CaptionSpec, DataSpec
from mm_data.records import Record
from mm_data.transforms.cleaning import cleaned
from mm_data.transforms.draws import below

AS_LISTED = CaptionSpec()


def caption_of(record: Record, data: DataSpec, draw: str) -> str:
    """The caption of a sample: one is chosen, cleaned, and put into a template.

    Args:
        record: Its clip.
        data: How captions are made.
        draw: What random choices follow from.
    """
    how = data.captions or AS_LISTED
    listed = _listed(record, how)
    caption = listed[below(draw, "caption", len(listed))]
    template = how.templates[below(draw, "template", len(how.templates))]
    return template.replace("{caption}", cleaned(caption, how.cleaning))


def captions_of(record: Record, data: DataSpec) -> Iterator[str]:
    """All captions that samples of a clip can have, whatever is drawn."""
    how = data.captions or AS_LISTED
    for caption in _listed(record, how):
        text = cleaned(caption, how.cleaning)
        for template in how.templates:
            yield template.replace("{caption}", text)


def _listed(record: Record, how: CaptionSpec) -> tuple[str, ...]:
    """The captions that are chosen from."""
    if how.choice is CaptionChoice.RANDOM and record.captions:
        return record.captions
    return (record.caption,)
