"""MAE, ViT-L/16, batch 4096: reconstruct the 75 % of an image that the encoder does not see.

    python -m jax_ssl train --config=configs/mae.py --config.data.name=folder:/data/imagenet --workdir=runs/mae

paper   ImageNet, 800 epochs: 42 hours on 64 V100 or 16 hours on 128 TPU v3 cores, fine-tuned 85.9 %
base    the same with ViT-B/16: fine-tuned 83.6 %
cifar   CIFAR-10 with a small network: minutes on two CPU cores; prepare the data with tensorflow-datasets
tiny    the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper(size="L"):
    config = common.base()
    config.batch_size, config.epochs = 4096, 800.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.mae(224)])
    config.model = common.vit(size)
    config.method = dict(
        name="mae", mask_ratio=0.75, sampling="random", norm_pix=True,
        decoder_width=512, decoder_depth=8, decoder_heads=16,
    )  # fmt: skip
    config.optim = common.optim("adamw", 1.5e-4, warmup_epochs=40.0, weight_decay=0.05, b2=0.95)
    return config


def cifar():
    config = common.cifar(3.0, [crops.mae(32)])
    config.model = common.small_cpu_vit()
    config.method = dict(paper().method, decoder_width=96, decoder_depth=1, decoder_heads=4)
    config.optim = dict(paper().optim, base_lr=1e-3, warmup_epochs=0.5)
    return config


def tiny():
    return common.tiny(cifar(), epochs=5.0)


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, base=lambda: paper("B"), cifar=cifar, tiny=tiny))
