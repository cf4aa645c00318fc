"""RotNet, AlexNet, batch 192: which of four turns?

    python -m jax_ssl train --config=configs/rotnet.py --config.data.name=folder:/data/imagenet --workdir=runs/rotnet

paper    ImageNet, AlexNet, 50 epochs: 89 % of the turns of held-out images, 54.4 mAP on VOC 2007 detection
nin      CIFAR-10, Network in Network of four blocks, 200 epochs: 93.7 % of the turns (its issue 6), 89.06 % of the
         classes by a non-linear classifier on block 2
resnet50 ImageNet, 105 epochs as VISSL runs it, but turned behind the crop: 48.2 % linear there, 54.2 at the best layer
cifar    CIFAR-10 with a small network: half an hour on two CPU cores; prepare the data with tensorflow-datasets
tiny     the embedded images, under two minutes on two CPU cores
"""

from jax_ssl.configs import common, crops


def paper():
    config = common.base()
    config.batch_size, config.epochs = 256, 105.0
    config.data.name = "tfds:imagenet2012"
    config.data.crops = dict(views=[crops.rotnet(224)])
    config.model = common.resnet(50)
    config.method = dict(name="rotnet", head=(), whole_map=False)
    config.optim = common.optim("sgd", 0.1, weight_decay=1e-4, schedule="step", milestones=(30.0, 60.0, 90.0, 100.0))
    return config


def cifar():
    config = common.cifar(3.0, [crops.cifar_rotnet()])
    config.batch_size = 128
    config.model = common.small_cpu_resnet()
    config.method = dict(name="rotnet", head=(), whole_map=False)
    config.optim = common.optim("adamw", 2e-3, warmup_epochs=0.5, weight_decay=1e-4)
    return config


def tiny():
    return common.tiny(cifar())


def get_config(preset="paper"):
    return common.pick(preset, dict(paper=paper, cifar=cifar, tiny=tiny))
