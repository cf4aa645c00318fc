"""Every key of an experiment, its default and its unit. The config of a method starts from these and changes some.

Nothing is computed here: what follows from these numbers (steps, the peak learning rate) is derived when a run is
built, so an override on the command line never leaves a stale value behind.
"""

from ml_collections import ConfigDict

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def base() -> ConfigDict:
    """The defaults. `crops`, `model`, `method` and `optim` are filled by each config."""
    return ConfigDict(
        dict(
            seed=0,
            batch_size=256,  # images, over all devices
            micro_batch=0,  # images whose activations are in memory at once; 0 = the whole batch
            epochs=100.0,  # passes over the training images
            log_every=20,  # steps
            checkpoint_every=1000,  # steps; the last step is always saved
            keep_last=2,  # checkpoints
            keep_best=1,  # checkpoints with the best kNN
            probe_every=1000,  # steps between kNN and linear probe on held-out images; 0 = never
            picture_every=1000,  # steps between pictures; 0 = at the end only
            feature_depth=0,  # kNN and linear probe use the output of this block, stage or convolution; 0 = last
            evaluate_at_end=False,  # a table of kNN and linear probe, with raw pixels and the untrained network
            on_collapse="warn",  # or "stop": exit code 4
            max_skipped=20,  # steps in a row that are not finite before the run stops
            init_from="",  # a run or official file to start from, or parts: backbone=PATH,projector=PATH,teacher=PATH
            mesh=dict(fsdp=1),  # devices that share each large parameter; the batch is split over all devices
            hosts=dict(
                init_timeout=300,  # seconds within which all processes of a run have to connect
                heartbeat=100,  # seconds without an answer until a process counts as dead; more if compiling is slow
                hang_seconds=1800,  # without a step until the run ends itself; more than an evaluation takes; 0 = off
            ),
            data=dict(
                name="embedded",  # embedded | tfds:NAME | folder:PATH | arrays:FILE.npz | synthetic
                split="train",  # or another split of the data set; test images are never those that are trained on
                dir="",  # where tensorflow-datasets keeps its sets; "" = its own default
                augment="hybrid",  # host | hybrid | device: where views are made
                crops={},  # groups of recipes, see crops.py
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
                eval_size=224,  # pixels, for kNN, linear probe and pictures of held-out images
                eval_crop=0.875,  # part of the short side that the centre crop keeps
                workers=0,  # threads that decode; 0 = one per core
                resident_size=0,  # pixels to which augment=device makes images of files square; 0 = they have one size
                reduce_jpegs=False,  # decode large JPEGs at 1/2, 1/4 or 1/8: faster, 0.3 to 0.5 of 255 off
                broken_limit=0.01,  # allowed share of unreadable images, and three in a small set; 0 = none
                probe=dict(name="", train=10000, test=2000),  # labelled images; "" = the training set's own, 0 = all
            ),
            model={},
            method={},
            optim={},
        )
    )


def resnet(depth: int = 50, **overrides) -> dict:
    """A ResNet's settings; see jax_ssl/models/resnet.py."""
    return dict(
        name="resnet", depth=depth, width=1.0, stem="imagenet", patch=4, stages=(), norm="batch", norm_groups=1,
        zero_init=True, dtype="bfloat16",
        padding="symmetric",  # as torch; same, same_pool = as the official TensorFlow code of BYOL and SimCLR
    ) | overrides  # fmt: skip


VIT_SIZES = dict(
    Ti=(192, 12, 3), S=(384, 12, 6), B=(768, 12, 12), L=(1024, 24, 16), H=(1280, 32, 16), g=(1536, 40, 24)
)  # width, depth, heads


def vit(size: str = "B", **overrides) -> dict:
    """A vision transformer's settings; see jax_ssl/models/vit.py."""
    width, depth, heads = VIT_SIZES[size]
    return dict(
        name="vit", patch=16, width=width, depth=depth, heads=heads, mlp_ratio=4.0, positions="sincos_column",
        pool="cls", registers=0, layer_scale=0.0, drop_path=0.0, epsilon=1e-6, remat="dots", dtype="bfloat16",
        mlp="gelu", init="xavier", key_bias=True, relative_bias="none", position_offset=0.0, position_antialias=False,
        drop_path_uniform=False,
        attention="auto",  # fused = a kernel where the chip has one, also in float32; plain = XLA's own
        unroll=False,  # True = each block compiled by itself, no loop
    ) | overrides  # fmt: skip


def alexnet(kind: str, **overrides) -> dict:
    """AlexNet's settings; see jax_ssl/models/alexnet.py."""
    return dict(name="alexnet", kind=kind, width=1.0, stride=4, norm_groups=1, dtype="bfloat16") | overrides


def nin(blocks: int = 4, **overrides) -> dict:
    """Network in Network's settings; see jax_ssl/models/nin.py."""
    return dict(name="nin", blocks=blocks, width=1.0, norm_groups=1, dtype="bfloat16") | overrides


def optim(name: str, base_lr: float, **overrides) -> dict:
    """An optimiser's settings; see jax_ssl/optim/optimizers.py."""
    return (
        dict(
            name=name,  # sgd | adamw | lars | larc
            base_lr=base_lr,
            scaling="linear_256",  # or linear_512, sqrt_1024, sqrt, absolute: how base_lr follows the batch size
            schedule="cosine",  # or step, constant
            milestones=(),  # epochs at which a step schedule goes down
            milestone_factor=0.1,  # and by how much
            warmup_epochs=0.0,
            warmup_lr=0.0,  # start of the warm-up, scaled like base_lr
            final_lr=0.0,  # end of the cosine, scaled like base_lr
            weight_decay=0.0,
            final_weight_decay=-1.0,  # at the end of the run; -1 = constant
            decay="weights",  # all = biases and norms too
            b1=0.9,
            b2=0.999,
            momentum=0.9,
            nesterov=False,
            lars_momentum="popular",  # learning rate outside the momentum buffer; classic = inside
            trust_coefficient=0.001,
            mu_dtype="float32",  # bfloat16 halves Adam's first moment
            clip=0.0,  # gradient norm; 0 = never
            clip_per="network",  # clip the norm of all, of each "module" (backbone, head), or of each "parameter"
            frozen=(),  # parameters that keep their first values, such as "backbone/embed"
            late=(),  # parameters not trained before `late_epochs`: "head/directions", or "backbone" for a new head
            late_epochs=0.0,
            late_moments=False,  # whether their gradients enter Adam's moments before that
            layer_decay=1.0,  # factor on the learning rate for each block further from the head
            embed_rate=1.0,  # factor on the learning rate of the patch embedding
            constant_rate=(),  # parameters that keep the peak learning rate, such as "predictor"
            rates={},  # {"critic": 0.1}: factors on the learning rate of parts of the network, by their names
            vector_rate=1.0,  # factor on the learning rate of biases and scales of norms
            unit_rows=(),  # parameters whose rows have length one, such as "prototypes"
        )
        | overrides
    )


def cifar(epochs: float, views: list) -> ConfigDict:
    """What all `cifar` presets share: 32-pixel images in device memory, measured at the end. views: list of recipes."""
    config = base()
    config.epochs, config.evaluate_at_end = epochs, True
    config.checkpoint_every = config.probe_every = config.picture_every = 500
    config.data.update(
        name="tfds:cifar10", augment="device", mean=CIFAR_MEAN, std=CIFAR_STD, eval_size=32, eval_crop=1.0
    )
    config.data.crops = dict(views=views)
    return config


def tiny(config: ConfigDict, epochs: float = 3.0) -> ConfigDict:
    """Makes the `tiny` preset from the `cifar` one: the 5 000 embedded images, under two minutes on two CPU cores."""
    config.data.name = "embedded"
    config.epochs, config.log_every = epochs, 5
    config.data.probe.update(train=0, test=0)
    return config


def imagenet100(config: ConfigDict) -> ConfigDict:
    """Makes the `imagenet100` preset from the `paper` one: ResNet-18, 100 classes, a day on one accelerator."""
    config.batch_size, config.epochs = 256, 200.0
    config.data.name = "folder:imagenet100"
    config.model.update(depth=18)
    return config


def cifar_resnet18(config: ConfigDict) -> ConfigDict:
    """Makes the `resnet18` preset from the `cifar` one: lightly's CIFAR-10 benchmark, for one GPU or TPU."""
    config.batch_size, config.epochs = 512, 200.0
    config.checkpoint_every = config.probe_every = config.picture_every = 2000
    config.data.probe.update(train=0, test=0)
    config.model = resnet(18, stem="cifar")
    config.optim = optim("sgd", 0.12, weight_decay=5e-4, decay="all")
    return config


def small_cpu_resnet(**overrides) -> dict:
    """A ResNet for two CPU cores: 4-pixel patches as a stem, two stages of one block, 64 and 128 channels wide.

    XLA's gradients of convolutions with few channels at a high resolution are slow on a CPU. This network has none, and
    trains 2.5 times as many images a second as 2-pixel patches with stages of 32, 64 and 128 channels.
    """
    return resnet(18, width=1.0, stem="patch", patch=4, stages=(1, 1), dtype="float32") | overrides


def small_cpu_vit(**overrides) -> dict:
    """A vision transformer for two CPU cores: 64 patches of 4 pixels, four blocks of width 128."""
    return vit("Ti", patch=4, width=128, depth=4, heads=4, remat="none", dtype="float32") | overrides


def pick(preset: str, presets: dict) -> ConfigDict:
    """The config of a preset. Raises ValueError, with the names of all presets, for an unknown name."""
    if preset not in presets:
        raise ValueError(f"no preset {preset!r}: choose one of {', '.join(presets)}")
    return presets[preset]()
