"""CPC v2: which patch comes further down, to the side or up, of all patches of a batch?

    python -m jax_ssl train --config=configs/cpc.py --config.data.name=folder:/data/imagenet --workdir=runs/cpc

paper     v2 on ImageNet, ResNet-50 to its third stage; 63.8 % linear with a ResNet-50, 71.5 with a larger one
paper_v1  v1: down only, ResNet-101 to its third stage; 48.7 % linear
cifar     v2 on CIFAR-10 with a small network: 16 minutes on a CPU core; 34 % of the patches found among 128, by the
          nearest colour 1.9; prepare the data with tensorflow-datasets
cifar_v1  the same with v1's one direction and patches as they are
tiny      v2 on the embedded images, under two minutes on two CPU cores
tiny_v1   v1 on the same
"""

from jax_ssl.configs import common, crops

V1 = dict(directions=1, mirror=0.0, channel_drop=0.0, relight=0.0, warp=0.0)


def paper():
    config = common.base()
    config.batch_size, config.epochs = 512, 200.0
    config.data.name = "tfds:imagenet2012"
    config.data.update(eval_size=300)
    config.data.crops = dict(views=[crops.cpc(300)])
    config.model = common.resnet(50, stages=(3, 4, 6), norm="layer")
    config.method = dict(
        name="cpc", patch=80, stride=36, offsets=1, directions=4, context_depth=5, context_width=256, target_width=64,
        embed_scale=0.1, jitter=0, mirror=0.5, channel_drop=0.8, relight=0.4, warp=15.0,
    )  # fmt: skip
    config.optim = common.optim("adamw", 2e-4, scaling="absolute", warmup_epochs=5.0, weight_decay=1e-5)
    return config


def paper_v1():
    config = paper()
    config.data.update(eval_size=256)
    config.data.crops = dict(views=[crops.cpc(256)])
    config.model = common.resnet(101, stages=(3, 4, 23), norm="layer")
    config.method.update(V1, patch=64, stride=32, offsets=4, target_width=0, embed_scale=1.0, jitter=4)
    config.optim.update(schedule="constant", warmup_epochs=0.0)
    return config


def cifar():
    config = common.cifar(1.0, [crops.cpc(32)])
    config.batch_size = 32
    config.model = common.small_cpu_resnet(norm="layer")
    config.method = dict(
        paper().method, patch=8, stride=4, offsets=1, context_depth=2, context_width=64, mirror=0.0, channel_drop=0.35,
        relight=0.2, warp=0.0,
    )
    config.optim = common.optim("adamw", 3e-3, scaling="absolute", warmup_epochs=0.2, weight_decay=1e-5)
    return config


def cifar_v1():
    config = cifar()
    config.method.update(V1, offsets=4)
    return config


def tiny():
    return common.tiny(cifar(), epochs=2.0)


def tiny_v1():
    return common.tiny(cifar_v1(), epochs=2.0)


def get_config(preset="paper"):
    presets = dict(paper=paper, paper_v1=paper_v1, cifar=cifar, cifar_v1=cifar_v1, tiny=tiny, tiny_v1=tiny_v1)
    return common.pick(preset, presets)
