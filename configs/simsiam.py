"""SimSiam, ResNet-50, batch 512: one network, a predictor and a stop-gradient.

    python -m jax_ssl train --config=configs/simsiam.py --config.data.name=folder:/data/imagenet --workdir=runs/simsiam

paper        ImageNet, 100 epochs on 8 V100: 68.1 % linear (facebookresearch/simsiam README)
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 512, 100.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.simsiam(224)])
    config.model = common.resnet(50)
    config.method = dict(name="simsiam", projector=(2048, 2048, 2048), predictor=(512, 2048), stop_gradient=True)
    config.optim = common.optim("sgd", 0.05, weight_decay=1e-4, decay="all", constant_rate=("predictor",))
    return config


def imagenet100():
    return common.imagenet100(paper())


def cifar():
    config = common.cifar(2.5, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(name="simsiam", projector=(512, 512), predictor=(128, 512), stop_gradient=True)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4, constant_rate=("predictor",))
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
