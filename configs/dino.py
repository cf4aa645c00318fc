"""DINO, ViT-S/16, batch 1024, two large and ten small crops: a student that learns from its own moving average.

    python -m jax_ssl train --config=configs/dino.py --config.data.name=folder:/data/imagenet --workdir=runs/dino

paper        ViT-S/16, ImageNet, 800 epochs: 2.6 days on 16 GPUs for the first 300; kNN 74.5 %, linear 77.0 %
vit_b        ViT-B/16, 400 epochs: kNN 76.1 %, linear 78.2 %
vanilla      ViT-S/16, eight small crops, batch 512, 100 epochs: 1.75 days on 8 GPUs; kNN 69.3 %, linear 74.0 %
resnet50     ResNet-50, batch 4080 on 80 GPUs, 800 epochs: kNN 67.5 %, linear 75.3 %
imagenet100  ViT-S/16 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on two CPU cores
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper(size="S"):
    config = common.base()
    config.batch_size, config.epochs = 1024, 800.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(
        views=[crops.dino_global_1(224, (0.25, 1.0)), crops.dino_global_2(224, (0.25, 1.0))],
        local=[crops.dino_local(96, (0.05, 0.25), count=10)],
    )
    config.model = common.vit(size, positions="learned", init="normal", position_offset=0.1, drop_path=0.1)
    config.method = dict(
        name="dino", prototypes=65536, hidden=2048, bottleneck=256, norm_last_layer=False, use_bn_in_head=False,
        student_temp=0.1, teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_teacher_epochs=30.0, centring=True,
        center_momentum=0.9, momentum=0.996, chunks=4,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 5e-4, warmup_epochs=10.0, final_lr=1e-5 / 4, weight_decay=0.04, final_weight_decay=0.4,
        clip_per="parameter", late=("projector/directions", "projector/length"), late_epochs=1.0,
    )  # fmt: skip  # final_lr is per 256 images: 1e-5 at this batch. Clipping was off in the released run
    return config


def vit_b():
    config = paper("B")
    config.epochs = 400.0
    config.method.update(norm_last_layer=True, warmup_teacher_epochs=50.0)
    config.optim.update(late=("projector/directions",), late_epochs=3.0, clip=0.3, base_lr=7.5e-4, final_lr=2e-6 / 4)
    return config


def vanilla():
    config = paper()
    config.batch_size, config.epochs = 512, 100.0
    config.data.crops = dict(
        views=[crops.dino_global_1(), crops.dino_global_2()], local=[crops.dino_local(96, (0.05, 0.4), count=8)]
    )
    config.method.update(norm_last_layer=True, teacher_temp=0.04, warmup_teacher_epochs=0.0)
    config.optim.update(late=("projector/directions",), final_lr=1e-6 / 2, clip=3.0)
    return config


def resnet50():
    config = paper()
    config.batch_size = 4080
    config.data.crops = dict(
        views=[crops.dino_global_1(224, (0.14, 1.0)), crops.dino_global_2(224, (0.14, 1.0))],
        local=[crops.dino_local(96, (0.05, 0.14), count=6)],
    )
    config.model = common.resnet(50, zero_init=False)
    config.method.update(prototypes=60000, norm_last_layer=True, use_bn_in_head=True, warmup_teacher_epochs=50.0)
    config.optim = common.optim(
        "lars", 0.3, warmup_epochs=10.0, final_lr=0.0048 * 256 / 4080, weight_decay=1e-6,
        late=("projector/directions",), late_epochs=1.0,
    )  # fmt: skip
    return config


def imagenet100():
    config = vanilla()
    config.batch_size, config.epochs = 256, 200.0
    config.data.name = "folder:imagenet100"
    config.method.update(prototypes=8192, chunks=1)
    config.optim.update(final_lr=1e-6)
    return config


def cifar():
    """Without small crops: for 32-pixel images they cost more time than they are worth."""
    config = common.cifar(8.0, [crops.cifar_short()])
    config.model = common.small_cpu_resnet()
    config.method = dict(
        paper().method, prototypes=256, hidden=256, bottleneck=64, norm_last_layer=True, warmup_teacher_epochs=0.0,
        teacher_temp=0.05, momentum=0.97, chunks=1,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4, clip=3.0, clip_per="parameter",
        late=("projector/directions",), late_epochs=0.2,
    )  # fmt: skip
    return config


def tiny():
    """Learned positions: with fixed ones all images start with similar features, and become more similar."""
    config = common.tiny(cifar(), epochs=0.8)  # 62 steps of 64 images, 64 patches each
    config.batch_size = 64
    config.data.crops.local = [crops.cifar_local()]
    config.model = common.small_cpu_vit(positions="learned")
    config.method.update(teacher_temp=0.04, warmup_teacher_temp=0.04, prototypes=512, momentum=0.98)
    config.optim.update(base_lr=2e-3, warmup_epochs=0.1, late_epochs=0.05)
    return config


def get_config(preset="paper"):
    presets = dict(
        paper=paper, vit_b=vit_b, vanilla=vanilla, resnet50=resnet50, imagenet100=imagenet100, cifar=cifar, tiny=tiny
    )
    return common.pick(preset, presets)
