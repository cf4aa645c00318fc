"""dVAE, DALL-E's encoder and decoder, batch 512: the tokenizer that BEiT learns from.

    python -m jax_ssl train --config=configs/dvae.py --config.data.name=folder:/data/imagenet --workdir=runs/dvae

paper        ImageNet at 112 pixels, 14 x 14 codes out of 8192, 100 epochs. DALL-E trained 3 million steps of 512 images
             of 256 pixels on 64 V100, with another loss than the squared error and a growing kl_weight; no accuracy
             is published, only BEiT's
imagenet100  a quarter of the width on a folder of 100 classes: hours on one accelerator
cifar        CIFAR-10, 8 x 8 codes out of 256: minutes on a CPU core; prepare the data with tensorflow-datasets
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def network(**overrides):
    """A tokenizer's settings; see jax_ssl/models/dvae.py. By default DALL-E's: a code covers 8 x 8 pixels."""
    return dict(name="dvae", vocabulary=8192, width=256, groups=4, blocks=2, patch=1, dtype="bfloat16") | overrides


def small_cpu_network():
    """A tokenizer for a CPU core: a code for each 4 x 4 pixels, and no convolution at a higher resolution."""
    return network(vocabulary=256, width=64, groups=1, patch=4, dtype="float32")


def paper():
    config = common.base()
    config.batch_size, config.epochs = 512, 100.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.plain(112)])
    config.data.eval_size = 112
    config.model = network()
    config.method = dict(name="dvae", temperature=1.0, final_temperature=0.0625, kl_weight=0.0)
    config.optim = common.optim("adamw", 1e-4, scaling="absolute", final_lr=1.25e-6, weight_decay=1e-4)
    return config


def imagenet100():
    config = paper()
    config.batch_size, config.epochs = 256, 50.0
    config.data.name = "folder:imagenet100"
    config.model.update(width=64)
    return config


def cifar():
    """A small kl_weight: without it reconstructions are better, but features separate the classes less well."""
    config = common.cifar(1.5, [crops.plain(32, (0.2, 1.0))])
    config.batch_size = 128
    config.model = small_cpu_network()
    config.method = dict(paper().method, kl_weight=0.003)
    config.optim = common.optim("adamw", 3e-3, scaling="absolute", warmup_epochs=0.1, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar(), epochs=4.0)


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
