"""Small operations of diffusion transformers, each with its plain reference form."""
