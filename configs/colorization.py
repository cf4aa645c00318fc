"""Colorization, dilated VGG, batch 40: from lightness alone, which of 313 colours has each pixel?

    python -m jax_ssl train --config=configs/colorization.py --config.data.name=folder:/imagenet --workdir=runs/colours

paper  ImageNet at 176 pixels, rare colours made to count: the authors fooled people with 32 % of their colourings
cifar  CIFAR-10 with a small network, all colours alike: four minutes on a CPU core; cross-entropy 3.05, by the table
       p(bin given L) 3.17; prepare the data with tensorflow-datasets
tiny   the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def network(**overrides):
    """The settings of the network with dilated convolutions; see jax_ssl/models/dilated_vgg.py."""
    return dict(name="dilated_vgg", width=1.0, norm_groups=1, dtype="bfloat16") | overrides


def paper():
    """500 000 steps of 40 images are 15.6 epochs of ImageNet; the rate falls at 225 000 and 450 000."""
    config = common.base()
    config.batch_size, config.epochs = 40, 15.6
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.colorization(176)])
    config.data.update(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), eval_size=176)
    config.model = network()
    config.method = dict(
        name="colorization", objective="classes", bins="official", neighbours=10, sigma=5.0, rebalance=1.0, uniform=0.5,
        target="nearest", decoder=(256, 256, 256), lightness_unit=1.0, temperature=0.38,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 3e-5, scaling="absolute", schedule="step", milestones=(7.0, 14.0), weight_decay=1e-3, b2=0.99
    )
    return config


def cifar():
    config = common.cifar(3.0, [crops.cifar_colorization()])
    config.data.update(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    config.batch_size = 128
    config.model = common.small_cpu_resnet()
    config.method = dict(paper().method, rebalance=0.0, decoder=(), lightness_unit=100.0)
    config.optim = common.optim("adamw", 2e-3, scaling="absolute", warmup_epochs=0.5, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar(), epochs=8.0)


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, cifar=cifar, tiny=tiny))
