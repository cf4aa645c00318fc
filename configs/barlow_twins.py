"""Barlow Twins, ResNet-50, batch 2048: the cross-correlation of two views becomes the identity.

    python -m jax_ssl train --config=configs/barlow_twins.py --config.data.name=folder:/data/imagenet --workdir=runs/bt

paper        ImageNet, 1000 epochs: 7 days on 16 V100, 73.5 % linear (facebookresearch/barlowtwins README)
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 2048, 1000.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.byol_a(224), crops.byol_b(224)])
    config.model = common.resnet(50)
    # 1/16: the official code divides the gradient by its number of GPUs.
    config.method = dict(name="barlow_twins", projector=(8192, 8192, 8192), lambd=0.0051, loss_scale=1 / 16)
    # Biases and norms have no trust ratio, and base_lr 0.0048 instead of 0.2.
    config.optim = common.optim("lars", 0.2, warmup_epochs=10.0, final_lr=0.0002, weight_decay=1e-6, vector_rate=0.024)
    return config


def imagenet100():
    config = common.imagenet100(paper())
    config.method.projector = (2048, 2048, 2048)
    return config


def cifar():
    config = common.cifar(2.5, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(name="barlow_twins", projector=(512, 512), lambd=0.0051, loss_scale=1.0)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
