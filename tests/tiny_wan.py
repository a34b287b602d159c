"""The small Wan network that tests build; those that need another shape evolve it."""

from mm_config.specs.wan import WanTransformerSpec

TINY_WAN = WanTransformerSpec(
    hidden_size=36,
    num_attention_heads=3,
    ffn_dim=50,
    num_layers=2,
    in_channels=4,
    out_channels=4,
    patch_size=(1, 2, 2),
    text_dim=10,
    freq_dim=16,
    rope_max_seq_len=32,
)
"""About 40,000 parameters, with sizes that two ranks divide unevenly."""
