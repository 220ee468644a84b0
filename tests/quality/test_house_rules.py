"""Rules of the house that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = "rt2_jax tasks gin_configs launch packages tests docs benchmarks examples .ci".split()
TEXT = {"", ".gin", ".in", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml"}
FILES = [
    file
    for file in (*ROOT.glob("*"), *(file for name in FOLDERS for file in (ROOT / name).rglob("*")))
    if file.is_file() and file.suffix in TEXT and "__pycache__" not in file.parts
]
PAGES = [file for file in FILES if file.suffix == ".md"]
MODULES = [file for file in FILES if file.suffix == ".py"]

# Paths of somebody's machine, hosts of a package registry.
FORBIDDEN = re.compile(
    r"(?:(?<![\w.])/(?:root|work|home|Users)/\w+)"
    r"|(?:\b(?:pypi|pythonhosted)\.org\b)"
    r"|(?:\S+:\d+\S*/simple\b)"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def name(file):
    return str(file.relative_to(ROOT))


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_no_module_is_longer_than_500_lines():
    assert [name(file) for file in MODULES if len(file.read_text().splitlines()) > 500] == []


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name(file) for file in FILES if drawers & {file.stem, file.parent.name}] == []


def test_no_file_names_a_machine_or_a_package_registry():
    # Bytes of a model hold any text by chance, and nobody wrote them.
    written = [file for file in FILES if "pretrained" not in file.parts]
    texts = {name(file): file.read_text() for file in written}
    found = {file: [*FORBIDDEN.findall(text)] for file, text in texts.items()}
    assert {file: matches for file, matches in found.items() if matches} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('open("/' + 'home/ada/x")', True),
        ("cd /" + "work/main", True),
        ("https://files.python" + "hosted.org/x", True),
        ("http://127.0.0.1:3141/" + "simple", True),
        ("https://example.org/home/page, a/work/flow", False),
    ],
)
def test_machine_paths_and_registry_hosts_are_recognised(text, found):
    assert bool(FORBIDDEN.search(text)) == found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}: no such file"
        if heading:
            anchors = {anchor(each) for each in HEADING.findall(file.read_text())}
            assert heading in anchors, f"{name(page)} links to {target}: no such heading"


def test_the_index_names_every_page():
    index = ROOT / "docs/index.md"
    named = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    pages = {page for page in PAGES if page.parent == index.parent and page != index}
    assert pages - named == set()
