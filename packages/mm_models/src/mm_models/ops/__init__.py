"""Small operations of diffusion transformers.

Each is a module of functions with equal signatures: `reference`, the plain form that defines the operation,
and forms that are faster somewhere. `choosing` picks one of each for a device.
"""
