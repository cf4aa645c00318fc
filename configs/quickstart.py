"""SimCLR on 5 000 small photographs that come with the package: a network learns from images without labels.

    python -m jax_ssl train --config=configs/quickstart.py

Two CPU cores, under five minutes, no network, no TensorFlow. The network is chosen for a CPU: 4-pixel patches in place
of convolutions at full size, then two residual stages of one block each, 64 and 128 channels wide.
"""

from jax_ssl.configs import simclr


def get_config():
    config = simclr.cifar()
    config.data.name = "embedded"
    config.data.probe.update(train=0, test=0)
    config.epochs, config.log_every = 40.0, 10
    config.probe_every = config.checkpoint_every = config.picture_every = 250
    config.method.temperature = 0.1  # with 5 000 images, 0.2 ends a point lower on kNN
    return config
