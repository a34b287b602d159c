"""What the text encoder is given of captions, by texts written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mm_config.specs import CaptionChoice, CaptionSpec, Cleaning
from mm_data import Record, caption_of, captions_of
from mm_data.transforms.cleaning import cleaned

MESSY = "  A Cat &amp;amp; a\tdog \n on   <b>Grass</b>，一只猫 http://pets.com/x cat_01.png "


@pytest.mark.parametrize(
    ("cleaning", "expected"),
    [
        (Cleaning.NONE, MESSY),
        (Cleaning.WHITESPACE, "A Cat &amp;amp; a dog on <b>Grass</b>，一只猫 http://pets.com/x cat_01.png"),
        (Cleaning.BASIC, "A Cat & a dog on <b>Grass</b>,一只猫 http://pets.com/x cat_01.png"),
        (Cleaning.WEB, "a cat ; a dog on grass, 一只猫"),
        (Cleaning.WEB_WITHOUT_CJK, "a cat ; a dog on grass"),
    ],
)
def test_cleaning_takes_out_what_it_says(cleaning, expected):
    assert cleaned(MESSY, cleaning) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("<person> @user riding #123 a BIKE", "person riding a bike"),
        ("a cat . a dog", "a cat a dog"),
        ("photo of a red-cat_in-the_hat", "photo of a red cat in the hat"),
        ('"""a “quoted” text..."""', 'a "quoted" text'),
        ("Free shipping: a 10x20 frame, page 3, id 1234567, jc6640", "a frame, , id"),
        ("an%20old+man 192.168.0.1 www.example.org", "an old man"),
        ("dash — dash – 1:23 ", "dash - dash - 1:23"),
        ("&quotpage 312&amp;&unknown; &#65;<!-- c -->", "unknown a"),
        ("Ã©tÃ© &quot;hot&quot; ® [x] {y}", 'ã tã "hot" x y'),
    ],
)
def test_web_texts_are_cleaned_as_by_deepfloyd(caption, expected):
    """As diffusers' `PixArtAlphaPipeline._clean_caption`, run twice, makes of them with Beautiful Soup."""
    assert cleaned(caption, Cleaning.WEB) == expected


def test_captions_are_chosen_cleaned_and_put_into_templates(data_spec):
    record = Record(Path("a.mp4"), "one", captions=("one", " two", "three"))
    assert caption_of(record, data_spec(), "0/0/0") == "one"
    assert list(captions_of(record, data_spec())) == ["one"]
    how = CaptionSpec(
        choice=CaptionChoice.RANDOM, cleaning=Cleaning.WHITESPACE, templates=("{caption}", "ohwx, {caption}")
    )
    data = data_spec(captions=how)
    drawn = [caption_of(record, data, f"3/{epoch}/5") for epoch in range(1200)]
    assert drawn == [caption_of(record, data, f"3/{epoch}/5") for epoch in range(1200)]
    texts, counts = np.unique(drawn, return_counts=True)
    assert sorted(texts) == sorted(captions_of(record, data))
    assert sorted(texts) == ["ohwx, one", "ohwx, three", "ohwx, two", "one", "three", "two"]
    # 200 each, by a standard deviation of 13.
    assert counts.min() > 145 and counts.max() < 255


def test_braces_in_captions_and_templates_are_plain_text(data_spec):
    record = Record(Path("a.mp4"), "{0} {caption}")
    how = CaptionSpec(templates=("{x} {caption}",))
    assert caption_of(record, data_spec(captions=how), "") == "{x} {0} {caption}"
