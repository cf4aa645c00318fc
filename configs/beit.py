"""BEiT, ViT-B/16, batch 2048: predict the codes of hidden patches, by a tokenizer that was trained before.

    python -m jax_ssl train --config=configs/dvae.py --config.data.name=folder:/data/imagenet --workdir=runs/dvae
    python -m jax_ssl train --config=configs/beit.py --config.data.name=folder:/data/imagenet --workdir=runs/beit

paper        ImageNet, 800 epochs on 16 V100, hours not published: fine-tuned 83.2 %, with DALL-E's tokenizer
imagenet100  ViT-S/16 on 100 classes, 200 epochs, with the tokenizer of configs/dvae.py:imagenet100 in
             runs/dvae_imagenet100
cifar        CIFAR-10 with a small network: minutes on a CPU core, with the tokenizer of configs/dvae.py:cifar in
             runs/dvae_cifar
tiny         the embedded images, under two minutes on two CPU cores; the tokenizer is trained in the same run
"""

from jax_ssl.configs import common, crops, dvae

# BEiT's and SimMIM's: relative positions shared by all blocks, no bias for keys, scaled residual branches.
TRANSFORMER = dict(positions="none", relative_bias="shared", key_bias=False, layer_scale=0.1, init="cut_normal")


def with_pixel_statistics(config):
    """The config with method.mean and method.std tied to data.mean and data.std, also when these are overridden."""
    config.method.mean, config.method.std = config.data.get_ref("mean"), config.data.get_ref("std")
    return config


def tokenizer_settings(**network):
    """Settings of a tokenizer that is trained in the same run. It is used only if method.tokenizer is empty."""
    network = {key: value for key, value in network.items() if key != "name"}
    return dict(network, temperature=1.0, final_temperature=0.0625)


def paper(size="B"):
    config = common.base()
    config.batch_size, config.epochs = 2048, 800.0
    config.data.update(name="tfds:imagenet2012", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    config.data.crops = dict(views=[crops.beit(224)])
    config.model = common.vit(size, drop_path=0.1, **TRANSFORMER)
    config.method = dict(
        name="beit", tokenizer="runs/dvae", mask_ratio=0.383, beside=tokenizer_settings(**dvae.network())
    )
    config.optim = common.optim(
        "adamw", 1.5e-3, scaling="absolute", warmup_epochs=10.0, warmup_lr=1e-6, final_lr=1e-5, weight_decay=0.05,
        decay="kernels", clip=3.0,
    )  # fmt: skip  # the official code also decays the mask token and the table of relative positions
    return with_pixel_statistics(config)


def imagenet100():
    config = paper("S")
    config.batch_size, config.epochs = 512, 200.0
    config.data.name = "folder:imagenet100"
    config.method.tokenizer = "runs/dvae_imagenet100"
    config.optim.base_lr = 7.5e-4
    return config


def cifar():
    """A plain transformer with 4-pixel patches, a code for each; features of its first block, as in simmim.py."""
    config = common.cifar(1.0, [dict(crops.beit(32), scale=(0.2, 1.0))])
    config.batch_size, config.feature_depth = 128, 1
    config.model = common.small_cpu_vit(depth=3, pool="mean")
    config.method = dict(
        paper().method, tokenizer="runs/dvae_cifar", beside=tokenizer_settings(**dvae.small_cpu_network())
    )
    config.optim = dict(paper().optim, base_lr=2e-3, warmup_epochs=0.2)
    return with_pixel_statistics(config)


def tiny():
    """The tokenizer is trained in the same run, on images of half the size."""
    config = common.tiny(cifar(), epochs=3.0)
    config.model.patch = 8
    config.method.tokenizer = ""
    return config


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, imagenet100=imagenet100, cifar=cifar, tiny=tiny))
