"""DINOv2, ViT-L/14, batch 3072, two large and eight small crops: DINO, iBOT, Sinkhorn-Knopp and KoLeo in one.

    python -m jax_ssl train --config=configs/dinov2.py --config.data.name=folder:/data/imagenet --workdir=runs/dinov2

paper            ViT-L/14 with SwiGLU and a separate patch head, 500 epochs of 1 250 steps: 3.3 days on 96 A100 with
                 142 M images; kNN 82.0 %, linear 84.5 % on ImageNet-22k
short            ViT-L/16, batch 2048, 100 epochs of 1 250 steps: a day on 32 A100; kNN 81.6 %, linear 82.9 %
vit_g            ViT-g/14, batch 3072: kNN 83.5 %, linear 86.5 % with 142 M images
registers        paper with four registers
high_resolution  the last phase: ten epochs at 518 pixels from a finished run, --config.init_from=runs/dinov2. The
                 paper gives only its length and a lower rate. 64 chips of v5p need --config.mesh.fsdp=8
imagenet100      ViT-S/16 on 100 classes, 200 epochs, one accelerator
cifar            CIFAR-10 with a small network: under half an hour on two CPU cores
tiny             the embedded images, under two minutes on two CPU cores

Epochs are official ones of 1 250 steps at the preset's batch size, as passes over ImageNet-1k: with another batch size
or data set, also set epochs, optim.warmup_epochs, optim.late_epochs and method.warmup_teacher_epochs.
"""

from jax_ssl.configs import common, crops

IMAGENET_IMAGES = 1_281_167
EPOCH = 1250  # steps: an epoch of the official configs, whatever the data set


def epochs(count, batch_size):
    """Passes over ImageNet-1k that take as many steps as `count` official epochs."""
    return count * EPOCH * batch_size / IMAGENET_IMAGES


def paper(size="L", **model):
    config = common.base()
    config.batch_size = 3072
    config.epochs = epochs(500, 3072)
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(
        views=[crops.dinov2_global_1(224), crops.dinov2_global_2(224)], local=[crops.dinov2_local(98)]
    )
    config.model = common.vit(
        size, patch=14, positions="learned", init="normal", position_offset=0.1, layer_scale=1e-5, drop_path=0.4,
        drop_path_uniform=True, mlp="swiglu", **model,
    )  # fmt: skip
    config.method = dict(
        name="dinov2", prototypes=131072, hidden=2048, bottleneck=384, patch_prototypes=131072, patch_bottleneck=256,
        student_temp=0.1, teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_teacher_epochs=epochs(30, 3072),
        centring="sinkhorn_knopp", iterations=3, center_momentum=0.9, momentum=0.994, mask_share=0.5,
        mask_ratio=(0.1, 0.5), image_weight=1.0, patch_weight=1.0, koleo_weight=0.1, koleo_images=32, chunks=4,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 2e-4, scaling="sqrt_1024", warmup_epochs=epochs(80, 3072), final_lr=1e-6 / 3**0.5, weight_decay=0.04,
        final_weight_decay=0.2, clip=3.0, clip_per="module", embed_rate=0.2, late_epochs=epochs(1, 3072),
        late=tuple(f"{head}/{part}" for head in ("projector", "patch_projector") for part in ("directions", "length")),
        late_moments=True,
    )  # fmt: skip
    return config


def short():
    config = paper()
    config.batch_size, config.epochs = 2048, epochs(100, 2048)
    config.model.update(patch=16, mlp="gelu", drop_path=0.3)
    config.data.crops = dict(
        views=[crops.dinov2_global_1(224), crops.dinov2_global_2(224)], local=[crops.dinov2_local(96)]
    )
    config.method.update(
        prototypes=65536, bottleneck=256, patch_prototypes=0, centring="mean", momentum=0.992, koleo_images=64,
        warmup_teacher_epochs=epochs(30, 2048),
    )  # fmt: skip
    config.optim.update(
        base_lr=4e-3, final_lr=1e-6 / 2**0.5, warmup_epochs=epochs(10, 2048), final_weight_decay=0.4, layer_decay=0.9,
        late=("projector/directions", "projector/length"), late_epochs=epochs(1, 2048),
    )  # fmt: skip
    return config


def registers():
    config = paper(registers=4)
    config.model.update(position_offset=0.0, position_antialias=True)
    return config


def vit_g():
    config = paper("g")
    config.method.koleo_images = 12
    return config


def high_resolution():
    config = paper()
    config.epochs = epochs(10, 3072)
    large = [crops.dinov2_global_1(518), crops.dinov2_global_2(518)]
    config.data.crops = dict(views=large, local=[crops.dinov2_local(98)])
    config.data.eval_size = 518
    config.method.update(warmup_teacher_epochs=0.0, momentum=0.999, chunks=32)
    config.optim.update(warmup_epochs=0.0, base_lr=1e-5, late=(), late_epochs=0.0, late_moments=False)
    return config


def imagenet100():
    config = short()
    config.batch_size, config.epochs = 256, 200.0
    config.data.name = "folder:imagenet100"
    config.model = common.vit(
        "S", positions="learned", init="normal", position_offset=0.1, layer_scale=1e-5, drop_path=0.1
    )
    config.method.update(prototypes=8192, momentum=0.994, warmup_teacher_epochs=20.0, chunks=8, koleo_images=0)
    config.optim.update(base_lr=1e-3, b2=0.99, final_lr=2e-6, warmup_epochs=10.0, layer_decay=1.0, late_epochs=1.0)
    return config


def cifar():
    """Fixed positions and no small crops: kNN is 37 % after 500 steps, and 32 % with learned positions."""
    config = common.cifar(8.0, [crops.cifar_mild()])
    config.batch_size = 128
    config.model = common.small_cpu_vit(patch=8, depth=3)
    config.method = dict(
        paper().method, prototypes=256, hidden=256, bottleneck=64, patch_prototypes=0, patch_bottleneck=64,
        teacher_temp=0.05, warmup_teacher_epochs=0.0, momentum=0.98, koleo_images=0, chunks=1,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 2e-3, warmup_epochs=0.5, weight_decay=0.04, clip=3.0, clip_per="module",
        late=("projector/directions", "projector/length"), late_epochs=0.1, late_moments=True,
    )  # fmt: skip
    return config


def tiny():
    config = common.tiny(cifar(), epochs=1.6)  # 124 steps of 64 images
    config.batch_size = 64
    config.data.crops.local = [crops.cifar_local()]
    config.optim.update(base_lr=4e-3, warmup_epochs=0.1)
    return config


def get_config(preset="paper"):
    presets = dict(
        paper=paper, short=short, registers=registers, vit_g=vit_g, high_resolution=high_resolution,
        imagenet100=imagenet100, cifar=cifar, tiny=tiny,
    )  # fmt: skip
    return common.pick(preset, presets)
