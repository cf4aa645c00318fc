"""MoCo v3, ViT-B/16 and ResNet-50, batch 4096: contrast within the batch, with a teacher, a predictor and no queue.

    python -m jax_ssl train --config=configs/moco_v3.py --config.data.name=folder:/data/imagenet --workdir=runs/moco_v3

paper        ViT-B/16, ImageNet, 300 epochs on 64 GPUs: 76.7 % linear (facebookresearch/moco-v3 README)
vit_s        ViT-S/16 with twelve heads, 300 epochs on 32 GPUs: 73.2 %
resnet50     ResNet-50, 100 epochs on 16 V100: 68.9 %
imagenet100  ResNet-18 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper(size="B", **model):
    config = common.base()
    config.batch_size, config.epochs = 4096, 300.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.moco_v3_a(224), crops.moco_v3_b(224)])
    config.model = common.vit(size, positions="sincos_row", **model)
    config.method = dict(
        name="moco_v3", projector=(4096, 4096, 256), predictor=(4096, 256), predictor_norm=True, temperature=0.2,
        momentum=0.99,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 1.5e-4, warmup_epochs=40.0, weight_decay=0.1, decay="all", frozen=("backbone/embed",)
    )
    return config


def resnet50():
    config = paper()
    config.epochs = 100.0
    config.data.crops = dict(views=[crops.moco_v3_a(224, smallest=0.2), crops.moco_v3_b(224, smallest=0.2)])
    config.model = common.resnet(50)
    config.method.update(projector=(4096, 256), predictor_norm=False, temperature=1.0)
    config.optim = common.optim("lars", 0.6, warmup_epochs=10.0, weight_decay=1e-6)
    return config


def imagenet100():
    return common.imagenet100(resnet50())


def cifar():
    config = common.cifar(2.5, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(
        name="moco_v3", projector=(256, 128), predictor=(256, 128), predictor_norm=False, temperature=0.2,
        momentum=0.97,
    )  # fmt: skip
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    presets = dict(
        paper=paper, vit_s=lambda: paper("S", heads=12), resnet50=resnet50, imagenet100=imagenet100, cifar=cifar,
        tiny=tiny,
    )  # fmt: skip
    return common.pick(preset, presets)
