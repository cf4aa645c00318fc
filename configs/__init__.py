"""Experiments: one file per method, with presets, as in `configs/simclr.py:cifar`. Installed as `jax_ssl.configs`."""
