"""The later fields of models and encoders that training and generation carry out alike."""

PART_FIELDS = frozenset(
    {
        "model.conditioning",
        "model.image_dim",
        "model.image_positions",
        "image_encoder",
        "autoencoder.weights.digest",
        "autoencoder.tile_size",
        "autoencoder.tile_stride",
        "autoencoder.patch_size",
        "autoencoder.decoder_base_dim",
        "autoencoder.is_residual",
        "text_encoder.weights.digest",
        "text_encoder.truncate",
        "runtime.attention",
        "runtime.npu",
    }
)
"""Paths in a spec, without its root."""
