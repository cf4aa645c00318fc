"""MoCo v2 (and v1), ResNet-50: 65 536 remembered keys as negatives, encoded by a slow copy of the network.

    python -m jax_ssl train --config=configs/moco.py --config.data.name=folder:/data/imagenet --workdir=runs/moco

paper        v2, ImageNet, 200 epochs at batch 256: 53 hours on 8 V100, 67.5 % linear (facebookresearch/moco README)
v1           linear head, temperature 0.07, step schedule: 60.6 % linear
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores; prepare the data with tensorflow-datasets
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 256, 200.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.moco_v2(224)])
    config.model = common.resnet(50, norm_groups=8, zero_init=False)  # groups as on the paper's eight devices
    config.method = dict(name="moco", projector=(2048, 128), temperature=0.2, momentum=0.999, queue=65536, shuffle=True)
    config.optim = common.optim("sgd", 0.03, scaling="absolute", weight_decay=1e-4, decay="all")
    return config


def v1():
    config = paper()
    config.data.crops = dict(views=[crops.moco_v1(224)])
    config.method.update(projector=(128,), temperature=0.07)
    config.optim.update(schedule="step", milestones=(120.0, 160.0))
    return config


def imagenet100():
    return common.imagenet100(paper())


def cifar():
    config = common.cifar(4.0, [crops.cifar_short()])
    # Batch statistics per 32 images, with shuffled keys: shared statistics would tell which key is the positive.
    config.model = common.small_cpu_resnet(norm_groups=8)
    # A short run needs a teacher that changes faster, and a queue with keys no older than about an epoch.
    config.method = dict(name="moco", projector=(256, 128), temperature=0.1, momentum=0.99, queue=4096, shuffle=True)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4)
    return config


def tiny():
    config = common.tiny(cifar())
    config.method.queue = 1024
    return config


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, v1=v1, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
