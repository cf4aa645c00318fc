"""Recipes of views, one function per recipe of a paper, after its official code; used by every config.

A recipe is a plain dict with all keys of `plain`; a group of `config.data.crops` is a list of recipes of one size.
Write `simclr(count=2)`, never `[recipe] * 2`: both entries are one object, and an override of one changes both.
The order of operations is fixed: crop, flip, [grey if grey_first], jitter, [grey], blur, solarize, normalise. A flip
commutes with all the others, so "flip last" (MoCo) needs no key. Blur is SimCLR's, with a kernel of a tenth of the
image; PIL's and torchvision's (9 taps in DINOv2) have the same sigma and another kernel size.
"""

PAIR_JITTER = (0.4, 0.4, 0.2, 0.1)  # of BYOL, DINO, iBOT, DINOv2, MoCo v3, Barlow Twins and VICReg
NO_JITTER = (0.0, 0.0, 0.0, 0.0)


def plain(size=224, scale=(0.08, 1.0), interpolation="bicubic", flip=0.5, count=1, ratio=(3 / 4, 4 / 3)):
    """A random resized crop and a flip, nothing else. torchvision RandomResizedCrop's defaults, but bicubic."""
    return dict(
        count=count, size=size, scale=scale, ratio=ratio, interpolation=interpolation, flip=flip, jitter=NO_JITTER,
        jitter_probability=0.0, grey=0.0, grey_first=False, blur=0.0, blur_sigma=(0.1, 2.0), solarize=0.0,
    )  # fmt: skip


def coloured(crop, jitter, blur, solarize=0.0, jitter_probability=0.8, grey=0.2):
    """A crop with colour jitter, grey, blur and solarize on top."""
    colours = dict(jitter=jitter, jitter_probability=jitter_probability, grey=grey, blur=blur, solarize=solarize)
    return dict(crop, **colours)


def simclr(size=224, strength=1.0, count=2):
    """SimCLR's views: google-research/simclr data_util.py. No normalisation: mean 0, std 1."""
    jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    return coloured(plain(size, count=count), jitter, blur=0.5)


def cifar_simclr(size=32, strength=0.5, count=2):
    """SimCLR's views for CIFAR: without blur, jitter at half strength. SimCLR paper, appendix B.9."""
    return dict(simclr(size, strength, count), blur=0.0)


def cifar_short(size=32, count=2):
    """For runs of minutes: a short run learns more from crops of at least 20 % of the image than of at least 8 %."""
    return dict(cifar_simclr(size, count=count), scale=(0.2, 1.0))


def cifar_mild(size=32, count=2):
    """cifar_short with less colour jitter, for short runs of transformers."""
    return dict(cifar_short(size, count), jitter=(0.2, 0.2, 0.2, 0.05), grey=0.1)


def cifar_local(size=16, scale=(0.1, 0.4), count=2):
    """Small crops for methods that use them, beside cifar_short; large enough to recognise the object."""
    return dict(cifar_short(size, count), scale=scale)


def moco_v1(size=224, count=2):
    """MoCo v1's views, grey before jitter, jitter always: facebookresearch/moco main_moco.py without --aug-plus."""
    crop = plain(size, (0.2, 1.0), "bilinear", count=count)
    return dict(coloured(crop, (0.4, 0.4, 0.4, 0.4), blur=0.0, jitter_probability=1.0), grey_first=True)


def moco_v2(size=224, count=2):
    """MoCo v2's and SimSiam's views: facebookresearch/moco main_moco.py --aug-plus, facebookresearch/simsiam."""
    return coloured(plain(size, (0.2, 1.0), "bilinear", count=count), (0.4, 0.4, 0.4, 0.1), blur=0.5)


simsiam = moco_v2


def moco_v3_a(size=224, smallest=0.08):
    """MoCo v3's first view: facebookresearch/moco-v3 main_moco.py. smallest: 0.08 for ViT, 0.2 for ResNet."""
    return coloured(plain(size, (smallest, 1.0), "bilinear"), PAIR_JITTER, blur=1.0)


def moco_v3_b(size=224, smallest=0.08):
    """MoCo v3's second view: facebookresearch/moco-v3 main_moco.py."""
    return coloured(plain(size, (smallest, 1.0), "bilinear"), PAIR_JITTER, blur=0.1, solarize=0.2)


def byol_a(size=224):
    """The first view of BYOL, Barlow Twins and VICReg: deepmind-research byol/utils/augmentations.py."""
    return coloured(plain(size), PAIR_JITTER, blur=1.0)


def byol_b(size=224):
    """The second view of BYOL, Barlow Twins and VICReg: deepmind-research byol/utils/augmentations.py."""
    return coloured(plain(size), PAIR_JITTER, blur=0.1, solarize=0.2)


def swav_global(size=224, scale=(0.14, 1.0), count=2):
    """SwAV's large crops, 2x224: facebookresearch/swav src/multicropdataset.py."""
    return coloured(plain(size, scale, "bilinear", count=count), (0.8, 0.8, 0.8, 0.2), blur=0.5)


def swav_local(size=96, scale=(0.05, 0.14), count=6):
    """SwAV's small crops, 6x96: facebookresearch/swav src/multicropdataset.py."""
    return swav_global(size, scale, count)


def dino_global_1(size=224, scale=(0.4, 1.0)):
    """DINO's first large crop: facebookresearch/dino main_dino.py, global_transfo1. Released runs: scale (0.25, 1)."""
    return coloured(plain(size, scale), PAIR_JITTER, blur=1.0)


def dino_global_2(size=224, scale=(0.4, 1.0)):
    """DINO's second large crop: facebookresearch/dino main_dino.py, global_transfo2. Released runs: scale (0.25, 1)."""
    return coloured(plain(size, scale), PAIR_JITTER, blur=0.1, solarize=0.2)


def dino_local(size=96, scale=(0.05, 0.4), count=8):
    """DINO's small crops: facebookresearch/dino main_dino.py, local_transfo. Released runs: 10, scale (0.05, 0.25)."""
    return coloured(plain(size, scale, count=count), PAIR_JITTER, blur=0.5)


def ibot_global_1(size=224, scale=(0.25, 1.0)):
    """iBOT's first large crop: bytedance/ibot main_ibot.py, global_transfo1; scale of its README (default: 0.14)."""
    return dino_global_1(size, scale)


def ibot_global_2(size=224, scale=(0.25, 1.0)):
    """iBOT's second large crop: bytedance/ibot main_ibot.py, global_transfo2; scale of its README (default: 0.14)."""
    return dino_global_2(size, scale)


def ibot_local(size=96, scale=(0.05, 0.25), count=10):
    """iBOT's small crops: bytedance/ibot main_ibot.py, local_transfo; ten as in its README (default: none)."""
    return dino_local(size, scale, count)


def dinov2_global_1(size=224, blur=0.0, flip=0.5):
    """DINOv2's first large crop: facebookresearch/dinov2 data/augmentations.py, global_transfo1.

    The released weights were trained with blur 0: the code blurs with probability 1 - p. Intended was 1.
    DINOv3-7B has flip 0.
    """
    return coloured(plain(size, (0.32, 1.0), flip=flip), PAIR_JITTER, blur=blur)


def dinov2_global_2(size=224, blur=0.9, flip=0.5):
    """DINOv2's second large crop: the same file, global_transfo2. Intended was blur 0.1."""
    return coloured(plain(size, (0.32, 1.0), flip=flip), PAIR_JITTER, blur=blur, solarize=0.2)


def dinov2_local(size=98, scale=(0.05, 0.32), count=8, flip=0.5):
    """DINOv2's small crops: the same file, local_transfo. 98 = 7 patches of 14 pixels; DINOv3: 112."""
    return coloured(plain(size, scale, flip=flip, count=count), PAIR_JITTER, blur=0.5)


def mae(size=224):
    """MAE's view: facebookresearch/mae main_pretrain.py. Scale (0.2, 1), bicubic, and flip."""
    return plain(size, (0.2, 1.0))


def simmim(size=192):
    """SimMIM's view: microsoft/SimMIM data/data_simmim.py. Scale (0.67, 1), torchvision's bilinear, and flip."""
    return plain(size, (0.67, 1.0), "bilinear")


def beit(size=224):
    """BEiT's view: microsoft/unilm beit/datasets.py. Jitter (0.4, 0.4, 0.4) always, there before the crop."""
    return coloured(plain(size), (0.4, 0.4, 0.4, 0.0), blur=0.0, jitter_probability=1.0, grey=0.0)


def ijepa(size=224):
    """I-JEPA's view: facebookresearch/ijepa src/transforms.py. Scale (0.3, 1), torchvision's bilinear, nothing else."""
    return plain(size, (0.3, 1.0), "bilinear", flip=0.0)


def jigsaw(size=256, grey=0.5, flip=0.0):
    """MehdiNoroozi/JigsawPuzzleSolver data_transformer.cpp; spec 2.5: the central square, half of them grey.

    No resize of a part: gaps between tiles are counted in pixels of the picture. VISSL: flip 0.5, grey 0.66.
    """
    return dict(plain(size, (1.0, 1.0), "bilinear", flip, ratio=(1.0, 1.0)), grey=grey)


def cpc(size=256, grey=0.25):
    """lightning-bolts, CPC transforms; spec 5.5 and supplement E: a crop of most of it, flip, jitter and grey."""
    return coloured(plain(size, (0.7, 1.0), "bilinear"), (0.4, 0.4, 0.4, 0.2), blur=0.0, grey=grey)


def rotnet(size=224):
    """RotNet's view, which the method then rotates: torchvision's crop and flip, gidariss/FeatureLearningRotNet."""
    return plain(size, interpolation="bilinear")


def cifar_rotnet(size=32):
    """gidariss/FeatureLearningRotNet dataloader.py; spec 1.5. There pad 4 and crop 32, here a crop of 28 to 32 px."""
    return plain(size, (0.77, 1.0), "bilinear", ratio=(1.0, 1.0))


def colorization(size=176):
    """richzhang/colorization colorization_train_val_v2.prototxt; spec 3.5: a crop of 176 of 256 pixels, and flip."""
    return plain(size, (0.47, 0.47), "bilinear", ratio=(1.0, 1.0))


def cifar_colorization(size=32):
    """colorization's with most of the image: at 32 pixels half of it would show little."""
    return plain(size, (0.6, 1.0), "bilinear", ratio=(1.0, 1.0))


def context_encoder(size=128):
    """pathak22/context-encoder data/donkey_folder.lua; spec 4.5: a crop of 128 of 350 pixels, and flip."""
    return plain(size, (0.134, 0.134), "bilinear", ratio=(1.0, 1.0))
