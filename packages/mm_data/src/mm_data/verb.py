"""`mm data`: what is done with clips before and beside training, one verb for each."""

from __future__ import annotations

from mm_config.cli import Usage, VerbGroup

GROUP = "mm.data_verbs"
"""Entry points, each a `Verb`."""
USAGE = Usage(
    "mm data VERB ...",
    "Index clips and captions, look at them, and compute features ahead.",
    "From clips as they are to batches: an index says once what each clip is, pages and samples show what "
    "the model will see, and features are computed ahead where that saves time.",
    (),
    (("mm data index clips clips-index", "measure a folder of clips, and get the line for the spec"),),
    takes="files",
)
VERB = VerbGroup("data", GROUP, USAGE)
