"""Jigsaw, AlexNet, 1 000 permutations of 3 x 3 tiles: in which order do they lie?

    python -m jax_ssl train --config=configs/jigsaw.py --config.data.name=folder:/data/imagenet --workdir=runs/jigsaw

paper     ImageNet, 350 000 steps: 2.5 days on a Titan X; VOC 2007 detection 53.2 %, 71 % of the puzzles
resnet50  100 permutations, eight an image, 35 epochs, as google/revisiting-self-supervised trains it
cifar     CIFAR-10 with a small network: a quarter of an hour on a CPU core; 92 % of the puzzles of 24 permutations, by
          the mean colours of the tiles 31; prepare the data with tensorflow-datasets
tiny      the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 256, 70.0
    config.data.update(name="tfds:imagenet2012", eval_size=256)
    config.data.crops = dict(views=[crops.jigsaw(256)])
    config.model = common.alexnet("caffe", stride=2)
    config.method = dict(
        name="jigsaw", permutations=1000, permutations_per_image=1, permutation_seed=0, cell=85, tile=64,
        standardised="channel", channel_drop=0.5, channel_offset=2, embedding=1024, hidden=4096, dropout=0.5,
        norm=False, whole_map=True,
    )  # fmt: skip
    config.optim = common.optim(
        "sgd", 0.01, scaling="absolute", schedule="step", milestones=(20.0, 40.0, 60.0), weight_decay=5e-4,
        vector_rate=2.0,
    )  # fmt: skip
    return config


def resnet50():
    config = paper()
    config.epochs = 35.0
    config.data.crops = dict(views=[crops.jigsaw(256, grey=0.66)])
    config.model = common.resnet(50)
    config.method.update(
        permutations=100, permutations_per_image=8, standardised="tile", channel_drop=0.0, channel_offset=0,
        embedding=1000, norm=True, whole_map=False,
    )
    config.optim = common.optim(
        "sgd", 0.1, schedule="step", milestones=(15.0, 25.0), warmup_epochs=5.0, weight_decay=1e-4
    )
    return config


def cifar():
    """Gap and jitter are a fifth of a cell, in pixels of the image. Channels stay: 2 of 255 pixels are 0.25 here.

    Four times as many steps of a quarter of the images teach more in the same minutes. Bottlenecks give a tile 512
    numbers instead of 128, for half as much work again. As many images are grey as in JigsawPuzzlePytorch. After two
    epochs kNN is not above that of the untrained network on whole images; after four it is.
    """
    config = common.cifar(8.0, [crops.jigsaw(32, grey=0.3, flip=0.5)])
    config.batch_size = 64
    config.model = common.small_cpu_resnet(depth=50)
    config.method = dict(
        paper().method, permutations=24, permutations_per_image=8, cell=10, tile=8, standardised="tile",
        channel_offset=0, embedding=128, hidden=512, dropout=0.0, norm=True, whole_map=False,
    )  # fmt: skip
    config.optim = common.optim("adamw", 1.5e-3, scaling="absolute", warmup_epochs=0.2, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar(), epochs=5.0)


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, resnet50=resnet50, cifar=cifar, tiny=tiny))
