"""Backbones and heads; no losses. `models/<name>.py` with a `make(**config.model)` is a backbone."""
