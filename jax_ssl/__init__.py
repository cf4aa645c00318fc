"""Self-supervised visual learning in JAX, for TPUs."""

__version__ = "0.1.0"
