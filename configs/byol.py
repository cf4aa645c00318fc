"""BYOL, ResNet-50, batch 4096: predict a teacher's features of the other crop, with no negatives.

    python -m jax_ssl train --config=configs/byol.py --config.data.name=folder:/data/imagenet --workdir=runs/byol

paper        ImageNet, 1000 epochs: 8 hours on 512 TPU v3 cores, 74.3 % linear
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
resnet18     CIFAR-10 as lightly's benchmark runs it, 200 epochs on one accelerator: kNN 86.8 % there
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 4096, 1000.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.byol_a(224), crops.byol_b(224)])
    config.model = common.resnet(50)
    config.method = dict(name="byol", projector=(4096, 256), predictor=(4096, 256), momentum=0.996)
    config.optim = common.optim("lars", 0.2, warmup_epochs=10.0, weight_decay=1.5e-6)
    return config


def imagenet100():
    config = common.imagenet100(paper())
    config.method.momentum = 0.99
    config.optim.update(base_lr=0.45, weight_decay=1e-6)
    return config


def cifar():
    config = common.cifar(2.5, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(name="byol", projector=(512, 128), predictor=(512, 128), momentum=0.9)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4, constant_rate=("predictor",))
    return config


def resnet18():
    config = common.cifar_resnet18(cifar())
    config.data.crops = dict(views=[crops.cifar_simclr()])
    config.method.update(projector=(1024, 256), predictor=(1024, 256), momentum=0.99)
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    presets = dict(paper=paper, imagenet100=imagenet100, cifar=cifar, resnet18=resnet18, tiny=tiny)
    return common.pick(preset, presets)
