"""iBOT, ViT-S/16, batch 1024, two large and ten small crops: DINO, and masked patches with the teacher as tokenizer.

    python -m jax_ssl train --config=configs/ibot.py --config.data.name=folder:/data/imagenet --workdir=runs/ibot

paper        ViT-S/16, ImageNet, 800 epochs on 16 GPUs: kNN 75.2 %, linear 77.9 %, fine-tuned 82.3 %
vit_b        ViT-B/16, 400 epochs on 24 GPUs: kNN 77.1 %, linear 79.5 %, fine-tuned 84.0 %
vit_l        ViT-L/16, 250 epochs on 64 GPUs: kNN 78.0 %, linear 81.0 %, fine-tuned 84.8 %
imagenet100  ViT-S/16 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: an hour on a CPU core
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper(size="S"):
    config = common.base()
    config.batch_size, config.epochs = 1024, 800.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.ibot_global_1(), crops.ibot_global_2()], local=[crops.ibot_local()])
    config.model = common.vit(size, positions="learned", init="normal", position_offset=0.1, drop_path=0.1)
    config.method = dict(
        name="ibot", prototypes=8192, hidden=2048, bottleneck=256, norm_last_layer=False, shared_head=True,
        student_temp=0.1, teacher_temp=0.07, warmup_teacher_temp=0.04, teacher_patch_temp=0.07,
        warmup_teacher_patch_temp=0.04, warmup_teacher_epochs=30.0, centring=True, center_momentum=0.9,
        momentum=0.996, mask_ratio=(0.0, 0.3), mask_spread=(0.0, 0.2), patch_weight=1.0, chunks=4,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 5e-4, warmup_epochs=10.0, final_lr=1e-6 / 4, weight_decay=0.04, final_weight_decay=0.4, clip=3.0,
        clip_per="parameter", late=("projector/directions", "projector/length"), late_epochs=1.0,
    )  # fmt: skip  # final_lr is per 256 images: 1e-6 at this batch
    return config


def larger(size, epochs):
    """Settings on which published copies of the released runs agree; the official README has those of ViT-S only."""
    config = paper(size)
    config.epochs = epochs
    config.data.crops = dict(
        views=[crops.ibot_global_1(224, (0.32, 1.0)), crops.ibot_global_2(224, (0.32, 1.0))],
        local=[crops.ibot_local(96, (0.05, 0.32))],
    )
    config.method.update(norm_last_layer=True, warmup_teacher_epochs=50.0)
    config.optim.update(base_lr=7.5e-4, final_lr=2e-6 / 4, clip=0.3, late=("projector/directions",), late_epochs=3.0)
    return config


def imagenet100():
    config = paper()
    config.batch_size, config.epochs = 256, 200.0
    config.data.name = "folder:imagenet100"
    config.method.update(chunks=8)
    config.optim.update(final_lr=1e-6)
    return config


def cifar():
    """Fixed positions and no small crops, as in dinov2.py."""
    config = common.cifar(12.0, [crops.cifar_mild()])
    config.batch_size, config.probe_every, config.picture_every = 64, 3000, 3000
    config.model = common.small_cpu_vit(patch=8, depth=3)
    config.method = dict(
        paper().method, prototypes=256, hidden=256, bottleneck=64, teacher_temp=0.04, teacher_patch_temp=0.04,
        warmup_teacher_epochs=0.0, momentum=0.988, chunks=1,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 3e-3, warmup_epochs=0.5, weight_decay=0.04, clip=3.0, clip_per="parameter",
        late=("projector/directions", "projector/length"), late_epochs=0.1,
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
        paper=paper, vit_b=lambda: larger("B", 400.0), vit_l=lambda: larger("L", 250.0), imagenet100=imagenet100,
        cifar=cifar, tiny=tiny,
    )  # fmt: skip
    return common.pick(preset, presets)
