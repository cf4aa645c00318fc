"""How well does the whole network learn from 1 % and from 10 % of the labels? Beside the same network from scratch.

Protocol of the training: finetune.py, with its recipe without mixup, cutmix and RandAugment, and its honest choice of
the learning rate on a tenth of the few labels. The images are equally many of each class, one at least, and depend on
the seed alone; those of a smaller share are among those of a larger one. The papers' lists of ImageNet's images
(google-research/simclr, imagenet_subsets) are another choice. Untrained networks are not fine-tuned: the network from
scratch is one, and student and teacher share its numbers.

Henaff et al. 2020 (CPC v2), https://arxiv.org/abs/1905.09272; Chen et al. 2020 (SimCLR), Sec. 6
"""

import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import finetune, rules

NEEDS = ("labels", "network", "squares", "trained")


def measure(
    case, seed, *, percent=(1, 10), epochs=20, rates=(1e-3, 4e-3), scratch=True, test_images=5000
) -> tuple[dict, dict]:
    """{top1_1_percent, scratch_1_percent, ...} for each number in `percent`, on at most `test_images` test images."""
    labels, names = case.train.labels, np.unique(case.train.labels)
    if not percent or not 0 < min(percent) <= max(percent) <= 100:
        raise UserError(f"--config.lowshot.percent={percent}: give numbers above 0, up to 100.")
    rows = rules.some(len(case.test.labels), test_images, seed)
    test = case.test.images[rows], case.test.labels[rows]
    numbers, chosen = {}, {}
    options = dict(epochs=epochs, base_lr=tuple(rates), seed=seed) | finetune.options_of(case.encode.backbone)
    for share in percent:
        few = finetune.fewshot(labels, max(round(len(labels) * share / 100), len(names)), seed)
        sets = case.train.images[few], labels[few], *test
        found = {"top1": finetune.finetune(case.encode, *sets, case.classes, scratch=False, **options)}
        if scratch:
            found["scratch"] = from_scratch(case, share, sets, options)
        for name, result in found.items():
            numbers[f"{name}_{share}_percent"] = result["top1"]
            chosen[f"{name}_{share}_percent"] = result["learning_rate"]
    protocol = {
        "name": "lowshot", "percent": list(percent), "epochs": epochs, "rates": list(rates), "learning_rate": chosen,
        "lowshot_test_images": len(rows), "choice": "equally many of each class", "recipe": "finetune",
    }  # fmt: skip
    return numbers, protocol


def from_scratch(case, share: float, sets, options: dict) -> dict:
    """What `finetune` finds with new weights, trained once for all cases of one architecture."""
    key = "lowshot", share, len(sets[-1]), case.encode.backbone, *options.items()
    if key not in case.shared:
        case.shared[key] = finetune.finetune(case.encode, *sets, case.classes, scratch=True, **options)
    return case.shared[key]
