"""SimCLR, ResNet-50, batch 4096: two views of an image become similar, and differ from 8 190 others.

    python -m jax_ssl train --config=configs/simclr.py --config.data.name=folder:/data/imagenet --workdir=runs/simclr

paper        ImageNet, 100 epochs: 6 hours on 32 TPU v3 cores, 64.5 % linear (google-research/simclr README)
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores; prepare the data with tensorflow-datasets
resnet18     CIFAR-10 as lightly's benchmark runs it, 200 epochs on one accelerator: kNN 84.8 % there
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 4096, 100.0
    config.data.update(name="tfds:imagenet2012", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    config.data.crops = dict(views=[crops.simclr(224)])
    config.model = common.resnet(50)
    config.method = dict(name="simclr", projector=(2048, 128), temperature=0.1)
    config.optim = common.optim("lars", 0.3, warmup_epochs=10.0, weight_decay=1e-4, lars_momentum="classic")
    return config


def paper_v2():
    """SimCLR v2's deeper projector, on the same backbone."""
    config = paper()
    config.method.projector = (2048, 2048, 128)
    return config


def imagenet100():
    return common.imagenet100(paper())


def cifar():
    config = common.cifar(3.0, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(name="simclr", projector=(256, 128), temperature=0.2)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4)
    return config


def resnet18():
    config = common.cifar_resnet18(cifar())
    config.data.crops = dict(views=[crops.cifar_simclr()])
    config.method.update(projector=(512, 128), temperature=0.5)
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    presets = dict(paper=paper, paper_v2=paper_v2, imagenet100=imagenet100, cifar=cifar, resnet18=resnet18,
                   tiny=tiny)  # fmt: skip
    return common.pick(preset, presets)
