"""PyTorch's side of `vs_torch.py` and `accelerator.py`: the usual networks, with what makes them fastest on a CPU."""

import importlib.util
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from jax_ssl.benchmark.input import cores
from jax_ssl.data import pipeline
from jax_ssl.models.positions import sincos
from jax_ssl.views.device import blur_radius


def stub_operators() -> torch.library.Library:
    """Lets torchvision's CUDA wheel be imported beside a CPU torch: its compiled operators get names and no code."""
    source = Path(importlib.util.find_spec("torchvision").origin).with_name("_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r'(?:register_meta\("|torchvision::)(\w+)', source))):
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


STUBS = stub_operators() if torch.version.cuda is None else None  # they are gone when this object is
from timm.models.vision_transformer import Block  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.models.resnet import BasicBlock  # noqa: E402

AHEAD = 2  # batches that a worker prepares ahead, the DataLoader's default
ONE_CORE = cores() == 1  # then processor time is measured, which other work on the machine hardly lengthens
CLOCK = time.process_time if ONE_CORE else time.perf_counter


class Side(NamedTuple):
    """One of the two, ready to run. Both functions run so many steps and return seconds a step."""

    parameters: int
    ahead: int  # batches that wait in its pipeline when nobody computes
    fed: Callable[[int], float]  # by its pipeline
    alone: Callable[[int], float]  # on one finished batch, again and again


def transform(recipe, mean, std):
    """The recipe in torchvision's words: PIL image -> float32 (3, h, w)."""
    interpolation = transforms.InterpolationMode(recipe["interpolation"])
    operations = [
        transforms.RandomResizedCrop(recipe["size"], tuple(recipe["scale"]), tuple(recipe["ratio"]), interpolation),
        transforms.RandomHorizontalFlip(recipe["flip"]),
    ]
    if recipe["jitter_probability"]:
        jitter = transforms.ColorJitter(*recipe["jitter"])
        operations.append(transforms.RandomApply([jitter], recipe["jitter_probability"]))
    if recipe["grey"]:
        operations.append(transforms.RandomGrayscale(recipe["grey"]))
    if recipe["blur"]:
        blur = transforms.GaussianBlur(2 * blur_radius(recipe["size"]) + 1, recipe["blur_sigma"])
        operations.append(transforms.RandomApply([blur], recipe["blur"]))
    if recipe["solarize"]:
        operations.append(transforms.RandomSolarize(128, recipe["solarize"]))
    return transforms.Compose([*operations, transforms.ToTensor(), transforms.Normalize(mean, std)])


class Views(torch.utils.data.Dataset):
    """The recipe's views of uint8 images (N, H, W, 3), by PIL: float32 (V, 3, h, w) each."""

    def __init__(self, images, recipe, mean, std):
        self.images, self.count = images, recipe["count"]
        self.transform = transform(recipe, mean, std)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = Image.fromarray(self.images[index])
        return torch.stack([self.transform(image) for _ in range(self.count)])


def endless(views, batch: int, workers: int):
    """Shuffled batches, epoch after epoch; workers start afresh, since a fork of a process with threads may hang."""
    more = dict(persistent_workers=True, prefetch_factor=AHEAD, multiprocessing_context="spawn") if workers else {}
    loader = torch.utils.data.DataLoader(views, batch, shuffle=True, drop_last=True, num_workers=workers, **more)
    while True:
        yield from loader


class SimCLR(nn.Module):
    """ResNet-18 with a 3x3 stem, a two-layer projector, and NT-Xent over the whole batch."""

    def __init__(self, width, hidden, out, temperature):
        super().__init__()
        layers, inside = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)], width
        for stage in range(4):
            for block in range(2):
                outside, stride = width * 2**stage, 2 if stage and not block else 1
                shrink = None
                if stride == 2:
                    shrink = nn.Sequential(nn.Conv2d(inside, outside, 1, 2, bias=False), nn.BatchNorm2d(outside))
                layers.append(BasicBlock(inside, outside, stride, shrink))
                inside = outside
        head = [nn.Linear(inside, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(True)]
        head += [nn.Linear(hidden, out, bias=False), nn.BatchNorm1d(out)]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
        self.temperature = temperature

    def forward(self, views):  # (B, 2, 3, h, w)
        images = views.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        embedded = functional.normalize(self.net(images).float())
        scores = (embedded @ embedded.T).float() / self.temperature
        scores.fill_diagonal_(-1e9)
        return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device).roll(len(views)))


class MAE(nn.Module):
    """The official index gather: the encoder sees the kept quarter, the decoder all; timm's blocks."""

    def __init__(self, model, method, size):
        super().__init__()

        def stack(width, depth, heads):
            norm = nn.LayerNorm(width, eps=1e-6)
            return nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)), norm)

        self.patch, self.grid = model.patch, size // model.patch
        self.keep = int(self.grid**2 * (1 - method.mask_ratio))
        values, inner = 3 * self.patch**2, method.decoder_width
        self.embed, self.narrow = nn.Linear(values, model.width), nn.Linear(model.width, inner)
        self.predict = nn.Linear(inner, values)
        self.cls = nn.Parameter(torch.randn(1, 1, model.width) * 0.02)
        self.hole = nn.Parameter(torch.randn(1, 1, inner) * 0.02)
        self.encoder = stack(model.width, model.depth, model.heads)
        self.decoder = stack(inner, method.decoder_depth, method.decoder_heads)
        for name, width in (("codes", model.width), ("inner_codes", inner)):
            codes = np.asarray(sincos((self.grid, self.grid), width), np.float32)
            self.register_buffer(name, torch.from_numpy(codes)[None])

    def forward(self, views):  # (B, 1, 3, h, w)
        batch, grid, patch = len(views), self.grid, self.patch
        cut = views.reshape(batch, 3, grid, patch, grid, patch)
        patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid**2, -1)
        order = torch.rand(batch, grid**2, device=views.device).argsort(1)
        kept, restore = order[:, : self.keep], order.argsort(1)
        gather = lambda x, index: x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
        x = gather(self.embed(patches) + self.codes, kept)
        x = self.narrow(self.encoder(torch.cat([self.cls.expand(batch, -1, -1), x], 1)))
        holes = self.hole.to(x.dtype).expand(batch, grid**2 - self.keep, -1)
        shown = gather(torch.cat([x[:, 1:], holes], 1), restore) + self.inner_codes
        prediction = self.predict(self.decoder(torch.cat([x[:, :1], shown], 1))[:, 1:])
        prediction = prediction.float()
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        hidden = restore >= self.keep
        return ((prediction - target).square().mean(-1) * hidden).sum() / hidden.sum()


def network(config) -> nn.Module:
    """The config's network and loss in one: views (B, V, 3, h, w) -> the loss."""
    model, method = config.model, config.method
    if method.name == "simclr":
        net = SimCLR(int(64 * model.width), *method.projector, method.temperature)
        return net.to(memory_format=torch.channels_last)
    return MAE(model, method, config.data.crops["views"][0]["size"])


def torch_side(config, compiled: bool, trial: int) -> Side:
    """DataLoader, network and AdamW. trial: steps run with 0, 1 and 2 workers each, of which the best stays.

    On one core there are no workers: their processor time would not be this process's.
    """
    recipe, net = config.data.crops["views"][0], network(config)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-4, fused=True)
    loss = torch.compile(net) if compiled else net
    views = Views(pipeline.open_data(config).source.images, recipe, config.data.mean, config.data.std)

    def runner(batches):
        def run(steps):
            start = CLOCK()
            for _ in range(steps):
                optimiser.zero_grad(set_to_none=True)
                loss(next(batches)).backward()
                optimiser.step()
            return (CLOCK() - start) / steps

        return run

    tried = {}
    for workers in (0,) if ONE_CORE else (0, 1, 2):
        run = runner(endless(views, config.batch_size, workers))
        run(1 + AHEAD * workers)  # what was prepared while nobody computed
        tried[workers] = (run(trial), run)
    best = min(tried, key=lambda workers: tried[workers][0])
    said = ", ".join(f"{workers}: {config.batch_size / seconds:,.1f}" for workers, (seconds, _) in tried.items())
    print(f"PyTorch's images/s by DataLoader workers: {said}; it takes {best}", flush=True)
    one = torch.stack([views[index] for index in range(config.batch_size)])
    return Side(sum(p.numel() for p in net.parameters()), AHEAD * best, tried[best][1], runner(iter(lambda: one, None)))
