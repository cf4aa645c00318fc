"""SimMIM, ViT-B/16, batch 2048: predict the pixels of hidden 32 x 32 squares by one linear layer.

    python -m jax_ssl train --config=configs/simmim.py --config.data.name=folder:/data/imagenet --workdir=runs/simmim

paper        ImageNet, 800 epochs on 16 GPUs with 128 images each, hours not published: fine-tuned 83.8 %
imagenet100  ViT-S/16 on 100 classes, 200 epochs
cifar        CIFAR-10 with a small network: minutes on a CPU core; prepare the data with tensorflow-datasets
tiny         the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import beit, common, crops


def paper(size="B"):
    config = common.base()
    config.batch_size, config.epochs = 2048, 800.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.simmim(224)])
    config.model = common.vit(size, drop_path=0.1, **beit.TRANSFORMER)
    config.method = dict(name="simmim", mask_ratio=0.6, mask_cell=32)
    config.optim = common.optim(
        "adamw", 1e-4, scaling="linear_512", schedule="step", milestones=(700.0,), warmup_epochs=10.0, warmup_lr=5e-7,
        weight_decay=0.05, decay="kernels", clip=5.0,
    )  # fmt: skip
    return config


def imagenet100():
    config = paper("S")
    config.batch_size, config.epochs = 512, 200.0
    config.data.name = "folder:imagenet100"
    config.optim.update(milestones=(175.0,))
    return config


def cifar():
    """A plain transformer: BEiT's is too slow for this run. Features of the first block; the others reconstruct."""
    config = common.cifar(1.0, [crops.simmim(32)])
    config.batch_size, config.feature_depth = 128, 1
    config.model = common.small_cpu_vit(depth=3, pool="mean")
    config.method = dict(paper().method, mask_cell=8)
    config.optim = dict(paper().optim, base_lr=6e-3, schedule="cosine", milestones=(), warmup_epochs=0.2)
    return config


def tiny():
    config = common.tiny(cifar(), epochs=4.0)
    config.model.patch = 8
    return config


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
