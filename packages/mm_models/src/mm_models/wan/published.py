"""How the weights of Wan's transformer are published."""

from mm_config.specs import WanTransformerSpec
from mm_models.wan import architecture, names
from mm_models.weights.published import Published

WAN = Published(
    about="Wan's transformer",
    spec=WanTransformerSpec,
    dialects=names.DIALECTS,
    anchor="patch_embedding.weight",
    unused=names.UNUSED,
    families=architecture.families,
    guess=architecture.guess,
    configs={"diffusers": architecture.diffusers_config, "wan": architecture.wan_config},
)
