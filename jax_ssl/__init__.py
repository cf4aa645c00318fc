"""Self-supervised visual learning in JAX, for TPUs."""

__version__ = "0.2.0"
