"""Suites of small runs that test a claim by changing one thing at a time; `python -m jax_ssl ablate` runs them.

    python -m jax_ssl ablate --list
    python -m jax_ssl ablate --suite=augmentation --workdir=runs/ablations --seeds=0,1

A suite is data. Budgets are for two idle CPU cores, about 500 images a second; `--config.epochs=` changes the length of
all cells of a suite, or `--seconds=` where cells have equal time. A new claim is a new entry of SUITES.
"""

from jax_ssl.configs.history import history, longer
from jax_ssl.configs.suite import AT_THE_END, Cell, Suite

augmentation = Suite(
    title="Which augmentations the views need",
    claim="Crops need colour distortion as well: without it, crops of one image can be matched by their colours alone.",
    source="Chen et al. 2020, SimCLR, section 3.1 and figure 5",
    config="simclr:cifar",
    cells={
        "crop only": Cell({"data.crops.views[0].jitter_probability": 0.0, "data.crops.views[0].grey": 0.0}),
        "crop+colour": Cell({"data.crops.views[0].jitter_probability": 0.8, "data.crops.views[0].grey": 0.2}),
        "crop+colour+blur": Cell(
            {
                "data.crops.views[0].jitter_probability": 0.8,
                "data.crops.views[0].grey": 0.2,
                "data.crops.views[0].blur": 0.5,
            }
        ),
    },
    axis="what changes between two views",
    numbers=("knn", "linear"),
    budget="2 epochs, 100 000 images: 3 to 4 minutes",
    overrides=AT_THE_END | {"epochs": 2.0},
)

negatives = Suite(
    title="Where the negatives come from",
    claim="SimCLR needs a larger batch for more negatives; MoCo's queue gives as many as wanted at one batch size.",
    source="Chen et al. 2020, SimCLR, figure 9; He et al. 2020, MoCo, figure 3",
    config="simclr:cifar",
    cells={
        **{
            f"SimCLR, batch {batch}": Cell({"batch_size": batch}, x=2 * batch - 2, line="SimCLR: 2 (batch - 1)")
            for batch in (64, 128, 256, 512)
        },
        **{
            f"MoCo, queue {queue}": Cell(
                {"method.queue": queue}, config="moco:cifar", x=queue, line="MoCo: the queue, batch 256"
            )
            for queue in (256, 1024, 4096, 16384)
        },
    },
    axis="negatives of each image",
    numbers=("knn", "linear"),
    budget="2 epochs, 100 000 images for every cell: 2 to 4 minutes",
    # With Adam the rate grows with the square root of the batch. 1.25e-4 gives the configs' 2e-3 at 256 images.
    overrides=AT_THE_END | {"epochs": 2.0, "optim.scaling": "sqrt", "optim.base_lr": 1.25e-4},
)

collapse = Suite(
    title="What keeps a method without negatives from collapsing",
    claim="Without negatives, stop-gradient and predictor prevent a constant output; a slow teacher alone does not.",
    source="Chen and He 2021, SimSiam, figure 2 and section 4; Grill et al. 2020, BYOL, table 5",
    config="byol:tiny",
    cells={
        "SimSiam": Cell({"method.stop_gradient": True}, config="simsiam:tiny"),
        "SimSiam, no stop-gradient": Cell({"method.stop_gradient": False}, config="simsiam:tiny"),
        "BYOL": Cell({}),
        "BYOL, no EMA": Cell({"method.momentum": 0.0}),
        "BYOL, no predictor": Cell({"method.predictor": ()}),
        "BYOL, neither": Cell({"method.predictor": (), "method.momentum": 0.0}),
    },
    axis="method, and what was removed from it",
    numbers=("feature_std", "rankme", "loss", "collapsed", "knn"),
    budget="8 epochs of the 5 000 embedded images, about 150 steps: a minute",
    overrides=AT_THE_END | {"epochs": 8.0},
)

MAE_EPOCH = dict(
    config="mae:cifar",
    numbers=("linear", "knn"),
    budget="1 epoch, 50 000 images: 2 to 3 minutes",
    overrides=AT_THE_END | {"epochs": 1.0},
)

mask_ratio = Suite(
    title="How much to hide",
    claim="A high mask ratio, about 75 %, gives the best features: small holes can be filled from their neighbours.",
    source="He et al. 2022, MAE, figure 5",
    cells={f"{100 * ratio:.0f} %": Cell({"method.mask_ratio": ratio}, x=ratio) for ratio in (0.25, 0.5, 0.75, 0.9)},
    axis="mask ratio",
    **MAE_EPOCH,
)

mask_sampling = Suite(
    title="Which patches to hide",
    claim="Hiding patches at random beats hiding blocks, which is too hard, and a regular grid, which is too easy.",
    source="He et al. 2022, MAE, table 1f",
    cells={
        "random, 75 %": Cell({"method.sampling": "random"}),
        "block, 50 %": Cell({"method.sampling": "block", "method.mask_ratio": 0.5}),
        "block, 75 %": Cell({"method.sampling": "block"}),
        "grid, 75 %": Cell({"method.sampling": "grid"}),
    },
    axis="how patches are chosen",
    **MAE_EPOCH,
)

decoder_depth = Suite(
    title="How deep to decode",
    claim="A deeper decoder takes over the reconstruction of pixels: frozen features improve, fine-tuning does not.",
    source="He et al. 2022, MAE, table 1a",
    cells={str(depth): Cell({"method.decoder_depth": depth}, x=depth) for depth in (1, 2, 4)},
    axis="blocks of the decoder",
    **MAE_EPOCH,
)

mae_target = Suite(
    title="What to reconstruct",
    claim="Patches normalised by their own mean and standard deviation are a better target than plain pixels.",
    source="He et al. 2022, MAE, table 1d",
    cells={
        "normalised patches": Cell({"method.norm_pix": True}),
        "pixels": Cell({"method.norm_pix": False}),
    },
    axis="target",
    **MAE_EPOCH,
)

mae_augmentation = Suite(
    title="Masking is the augmentation",
    claim="MAE needs a crop at most: colour jitter, which contrastive learning needs, makes it worse.",
    source="He et al. 2022, MAE, table 1e",
    cells={
        "none": Cell({"data.crops.views[0].scale": (1.0, 1.0), "data.crops.views[0].ratio": (1.0, 1.0)}),
        "crop": Cell({}),
        "crop+colour": Cell(
            {
                "data.crops.views[0].jitter": (0.4, 0.4, 0.4, 0.1),
                "data.crops.views[0].jitter_probability": 0.8,
                "data.crops.views[0].grey": 0.2,
            }
        ),
    },
    axis="augmentation",
    **MAE_EPOCH,
)

PUZZLES_AT_THE_END = {"probe_every": 1_000_000, "picture_every": 0}  # they are asked with the probe of the last step

jigsaw_shortcuts = Suite(
    title="What a jigsaw puzzle must not give away",
    claim="Without gaps or without standardised tiles, edges and shading solve the puzzle: more are right, and "
    "features are no better.",
    source="Noroozi and Favaro 2016, section 4.2 and the table of its ablations",
    config="jigsaw:tiny",
    cells={
        "all remedies": Cell({}),
        "no gap": Cell({"method.cell": 8}),
        "tiles as they are": Cell({"method.standardised": "none"}),
        "neither": Cell({"method.cell": 8, "method.standardised": "none"}),
    },
    axis="what is done against shortcuts",
    numbers=("pretext_accuracy", "knn", "linear"),
    budget="3 epochs of the 5 000 embedded images, eight puzzles of each: a minute",
    overrides=PUZZLES_AT_THE_END | {"epochs": 3.0},
)

cpc_norm = Suite(
    title="Do patches tell each other what they are?",
    claim="By the statistics of a batch a patch knows of the others of its image: with batch norm more patches are "
    "found, and features are no better.",
    source="Henaff et al. 2019, CPC v2, section 4.1",
    config="cpc:tiny",
    cells={"layer norm": Cell({"model.norm": "layer"}), "batch norm": Cell({"model.norm": "batch"})},
    axis="normalisation of the encoder",
    numbers=("pretext_accuracy", "knn", "linear"),
    budget="1 epoch of the 5 000 embedded images: a minute or two",
    overrides=PUZZLES_AT_THE_END | {"epochs": 1.0},
)

inpainting = Suite(
    title="What makes a painting sharp",
    claim="Squared error alone paints the mean of all that may be there, which is smooth; a critic makes it sharp.",
    source="Pathak et al. 2016, context encoders, section 3.2 and figure 4",
    config="context_encoder:cifar",
    cells={
        "L2": Cell({"method.share": 1.0}),
        "L2 + adversarial": Cell({"method.share": 0.999}),
        "L2 + 20 times adversarial": Cell({"method.share": 0.98}),
    },
    axis="loss",
    numbers=("pretext_gradient_energy", "pretext_l2", "knn", "linear"),
    budget="3 epochs of CIFAR-10, 150 000 images: 3 to 5 minutes",
    overrides=PUZZLES_AT_THE_END | {"epochs": 3.0},
)

turned = Suite(
    title="Where to turn an image",
    claim="Turned before the crop, a picture shows its bars: the puzzle gets easy, and the features do not get better.",
    source="Gidaris et al. 2018, RotNet, section 3.1 (only turns that leave no trace); VISSL turns first",
    config="rotnet:tiny",
    cells={
        "turned behind the crop": Cell({"method.turned": "last"}),
        "turned before it": Cell({"method.turned": "first"}),
    },
    axis="when an image is turned",
    numbers=("pretext_accuracy", "knn", "linear"),
    budget="4 epochs of the 5 000 embedded images, in four turns each: 2 minutes",
    overrides=PUZZLES_AT_THE_END | {"epochs": 4.0},
)

SUITES = dict(
    augmentation=augmentation, negatives=negatives, collapse=collapse, mask_ratio=mask_ratio,
    mask_sampling=mask_sampling, decoder_depth=decoder_depth, mae_target=mae_target, mae_augmentation=mae_augmentation,
    turned=turned, jigsaw_shortcuts=jigsaw_shortcuts, cpc_norm=cpc_norm, inpainting=inpainting,
    history=history, longer=longer,
)  # fmt: skip
