"""RotNet, AlexNet, batch 192: by which of four turns was an image turned?

    python -m jax_ssl train --config=configs/rotnet.py --config.data.name=folder:/data/imagenet --workdir=runs/rotnet

paper     ImageNet, AlexNet, 50 epochs: 89 % of the turns of held-out images (its issue 17), 54.4 mAP on VOC 2007
resnet50  ImageNet, 105 epochs as VISSL runs it, but turned behind the crop: 48.2 % linear there
nin       CIFAR-10, Network in Network of four blocks, 200 epochs on an accelerator: 93.7 % of the turns (its issue 6),
          and behind block 2, with a non-linear classifier, 89.06 % of the classes
cifar     CIFAR-10 with a small network: minutes on two CPU cores; prepare the data with tensorflow-datasets
tiny      the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 192, 50.0  # images; four turns of each
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.rotnet(224)])
    config.model = common.alexnet("rotnet")
    config.method = dict(name="rotnet", head=(4096, 4096), whole_map=True, turned="last")
    config.optim = sgd(0.01, milestones=(15.0, 30.0, 45.0))
    return config


def sgd(rate, **steps):
    """The official optimiser; its rate is not scaled for the four turns of each image."""
    shared = dict(scaling="absolute", schedule="step", momentum=0.9, nesterov=True, weight_decay=5e-4, decay="all")
    return common.optim("sgd", rate, **shared, **steps)


def resnet50():
    config = paper()
    config.batch_size, config.epochs = 256, 105.0
    config.model = common.resnet(50)
    config.method.update(head=(), whole_map=False)
    config.optim = common.optim(
        "sgd", 0.1, schedule="step", milestones=(30.0, 60.0, 90.0, 100.0), weight_decay=1e-4, nesterov=True
    )
    return config


def nin():
    config = common.cifar(200.0, [crops.cifar_rotnet()])
    config.batch_size = 128
    config.checkpoint_every = config.probe_every = config.picture_every = 4000
    config.data.probe.update(train=0, test=0)
    config.model = common.nin()
    config.method = dict(paper().method, head=(), whole_map=False)
    config.optim = sgd(0.1, milestones=(60.0, 120.0, 160.0), milestone_factor=0.2)
    return config


def cifar():
    config = common.cifar(2.0, [crops.cifar_rotnet()])
    config.batch_size = 128
    config.model = common.small_cpu_resnet()
    config.method = dict(paper().method, head=(), whole_map=False)
    config.optim = common.optim("adamw", 4e-3, warmup_epochs=0.2, weight_decay=1e-4)
    return config


def tiny():
    config = common.tiny(cifar(), epochs=4.0)
    config.batch_size = 64
    return config


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, resnet50=resnet50, nin=nin, cifar=cifar, tiny=tiny))
