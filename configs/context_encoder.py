"""Context encoder, DCGAN's convolutions, batch 64: paint the middle of an image from what is around it.

    python -m jax_ssl train --config=configs/context_encoder.py --config.data.name=folder:/images --workdir=runs/holes

paper   images of 128 pixels with a hole of 64, squared error and critic, 500 epochs of 100 000 pictures of Paris
random  blotches over a quarter of the image instead, and the whole image painted
cifar   CIFAR-10 with a small network and a hole of 16: four minutes on a CPU core; squared error 0.0256 of pixels from
        0 to 1, by the smoothest fill 0.0289; prepare the data with tensorflow-datasets
tiny    the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops

HALF = (0.5, 0.5, 0.5)


def network(**overrides):
    """The settings of DCGAN's encoder; see jax_ssl/models/dcgan.py."""
    return dict(name="dcgan", widths=(64, 64, 128, 256, 512), norm_groups=1, dtype="bfloat16") | overrides


def paper():
    config = common.base()
    config.batch_size, config.epochs = 64, 500.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.context_encoder(128)])
    config.data.update(mean=HALF, std=HALF, eval_size=128)
    config.model = network()
    config.method = dict(
        name="context_encoder", region="centre", hole=64, overlap=4, density=0.25, cells=8, bottleneck=4000,
        painter=(512, 256, 128, 64), critic=(64, 128, 256, 512), share=0.999,
    )  # fmt: skip
    config.optim = common.optim(
        "adamw", 2e-3, scaling="absolute", schedule="constant", b1=0.5, rates={"critic": 0.1}
    )  # fmt: skip
    return config


def random():
    config = paper()
    config.method.update(region="random", painter=(512, 256, 128, 64, 64), critic=(64, 64, 128, 256, 512))
    return config


def cifar():
    """Read behind the first stage: the second one stands next to the painter and works for that alone."""
    config = common.cifar(3.0, [crops.cifar_rotnet()])
    config.data.update(mean=HALF, std=HALF)
    config.batch_size, config.feature_depth = 128, 1
    config.model = common.small_cpu_resnet()
    config.method = dict(paper().method, hole=16, overlap=1, bottleneck=0, painter=(128,), critic=(32, 64))
    config.optim = dict(paper().optim, schedule="cosine", warmup_epochs=0.25)
    return config


def tiny():
    return common.tiny(cifar(), epochs=8.0)


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, random=random, cifar=cifar, tiny=tiny))
