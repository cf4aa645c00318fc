"""SwAV, ResNet-50, batch 4096, two large and six small crops: swap cluster assignments between views.

    python -m jax_ssl train --config=configs/swav.py --config.data.name=folder:/data/imagenet --workdir=runs/swav

paper        ImageNet, 800 epochs: 50 hours on 64 V100, 75.3 % linear (facebookresearch/swav README)
batch256     one node of four GPUs, with a queue from epoch 15: 200 epochs, 72.7 %
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 4096, 800.0
    config.data.update(name="tfds:imagenet2012", std=(0.228, 0.224, 0.225))  # 0.228: as in the official code
    config.data.crops = dict(views=[crops.swav_global(224)], local=[crops.swav_local(96)])
    config.model = common.resnet(50, norm_groups=8, zero_init=False)  # the official batch norm spans 8 of 64 GPUs
    config.method = dict(
        name="swav", projector=(2048, 128), prototypes=3000, temperature=0.1, epsilon=0.05, iterations=3, queue=0,
        queue_from_epoch=15.0, freeze_steps=313,
    )  # fmt: skip
    config.optim = common.optim(
        "larc", 4.8, scaling="absolute", warmup_epochs=10.0, warmup_lr=0.3, final_lr=0.0048, weight_decay=1e-6,
        decay="all", unit_rows=("prototypes",),
    )  # fmt: skip
    return config


def batch256():
    config = paper()
    config.batch_size, config.epochs = 256, 200.0
    config.model.norm_groups = 1
    config.method.update(queue=3840, freeze_steps=5005)
    config.optim.update(base_lr=0.6, final_lr=0.0006, warmup_epochs=0.0)
    return config


def imagenet100():
    config = common.imagenet100(batch256())
    config.method.update(prototypes=1000, freeze_steps=500)
    return config


def cifar():
    config = common.cifar(4.0, [crops.cifar_short()])
    config.data.crops = dict(views=[crops.cifar_short()], local=[crops.cifar_local()])
    config.model = common.small_cpu_resnet()
    config.method = dict(
        name="swav", projector=(256, 128), prototypes=128, temperature=0.1, epsilon=0.05, iterations=3, queue=0,
        queue_from_epoch=1.0, freeze_steps=20,
    )  # fmt: skip
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4, unit_rows=("prototypes",))
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    presets = dict(paper=paper, batch256=batch256, imagenet100=imagenet100, cifar=cifar, tiny=tiny)
    return common.pick(preset, presets)
