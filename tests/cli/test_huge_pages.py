"""The `rt2` process asks its allocator for huge pages."""

import os
import pathlib
import subprocess
import sys

import pytest

MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import os, sys
from rt2_jax.cli import main
main._run = lambda name, arguments: print(arguments, os.getpid(), os.environ["GLIBC_TUNABLES"])
main.main()
"""


def run(environment):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "--gin-file=x y"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        return process.communicate()[0].strip(), process.pid


def test_the_same_process_begins_again_with_huge_pages_and_its_arguments():
    if not MODE.exists() or "[madvise]" not in MODE.read_text():
        pytest.skip("this kernel does not leave huge pages to programs")
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    output, pid = run(environment)
    assert output == f"['train', '--gin-file=x y'] {pid} glibc.malloc.hugetlb=1"


def test_what_a_user_has_chosen_is_left_alone():
    output, pid = run({**os.environ, "GLIBC_TUNABLES": "glibc.malloc.perturb=0"})
    assert output == f"['train', '--gin-file=x y'] {pid} glibc.malloc.perturb=0"
