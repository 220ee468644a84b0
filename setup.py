"""Builds the `rt2-jax` distribution: the package `rt2_jax` and the command `rt2`.

`packages/rt2_client` builds the robot's small part of it for Python 3.8 and later.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "rt2_jax/__init__.py").read_text())[1]

# `t5`, `airio`, `seqio-nightly` and `tfds-nightly` overwrite SeqIO and TFDS with releases of 2023
# that current protobuf cannot run; a test keeps them out.
EXTRAS = {
    "data": [
        "seqio==0.0.20",
        "tensorflow>=2.21",
        "tensorflow-datasets==4.9.10",
        "array-record>=0.8",
        "msgpack>=1.1",
        "pillow>=11",
        "sentencepiece>=0.2",
        "pyarrow>=20",
        "av>=15",
    ],
    "train": [
        "array-record>=0.8",
        "msgpack>=1.1",
        "pillow>=11",
        "jax>=0.10,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "gin-config>=0.5",
        "sentencepiece>=0.2",
        "rich>=13",
    ],
    "serve": [
        "starlette>=0.46",
        "uvicorn>=0.54",
        "flatbuffers>=24.3",  # jax.export's files
        "websockets>=14",
        "msgpack>=1.1",
        "prometheus-client>=0.21",
        "array-record>=0.8",
        "pillow>=11",
    ],
    "sim": ["mujoco>=3.3,<5", "gymnasium>=1.1,<2", "pillow>=11", "rich>=13"],
    "eval": ["scipy>=1.14", "rich>=13"],
    "convert": ["safetensors>=0.5", "tensorstore>=0.1.74"],
    "dev": [
        "filelock>=3.16",  # jax asks for it where its cache of programs has a size limit
        "hypothesis>=6.130",
        "import-linter>=2.16,<3",
        "mypy>=2.4,<2.5",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "pyyaml>=6",
        "ruff>=0.17,<0.18",
        "setuptools>=64",
        "wheel",
    ],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# Apart: it asks for older releases of protobuf, pyarrow and pillow than everything else would get,
# and sentencepiece 0.2.3 cannot be imported with that protobuf.
EXTRAS["beam"] = [*EXTRAS["data"], "apache-beam>=2.77,<3", "sentencepiece==0.2.1"]

setup(
    name="rt2-jax",
    version=VERSION,
    description="The open RT-2: co-fine-tune vision-language models on web and robot data in JAX, "
    "serve them, drive robots",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    install_requires=["numpy>=1.26", "msgpack>=1.1", "websockets>=14"],
    extras_require=EXTRAS,
    # `rt2_jax/{benchmarks,tasks,gin_configs,launch}` are links to the folders at the top, so that
    # they are packaged under `rt2_jax` and nothing generic lands in site-packages.
    packages=find_packages(include=["rt2_jax", "rt2_jax.*"]),
    package_data={
        "rt2_jax": [
            "pretrained/**",
            "py.typed",
            "**/*.css",
            "**/*.gin",
            "**/*.html",
            "**/*.js",
            "**/*.json",
            "**/*.model",
            "**/*.svg",
            "**/*.toml",
            "**/*.txt",
        ]
    },
    entry_points={"console_scripts": ["rt2 = rt2_jax.cli.main:main"]},
)
