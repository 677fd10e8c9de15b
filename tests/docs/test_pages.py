"""The README and every page of docs/: blocks of Python run as printed, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from types import ModuleType

import pytest
from support.docs.pages import DOCS, PAGES, blocks_of
from support.networks.backbones import foreign

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
# tests/multiprocess runs them, in processes of their own, and tests/integrations the last.
ELSEWHERE = {f"distributed/{name}.md" for name in ("torch", "jax", "tensorflow", "cluster")}
ELSEWHERE.add("guides/integrations.md")
FRAMEWORKS = ("torch", "keras", "tensorflow", "jax", "numpy")
LIBRARIES = (
    *FRAMEWORKS,
    *("matplotlib", "safetensors", "timm", "onnxruntime", "onnxscript", "orbax", "flatbuffers"),
)
ONNX = r"loss_balance\.reference_models(\.| import )onnx"
# That a block needs a library.
SIGNS = {"onnxruntime": ONNX, "onnxscript": ONNX, "flatbuffers": r"\bto_jax\b"}
NOT_RUN = {"distributed/cluster.md": 2}  # blocks of Python, for reasons that the page has


def named(path):
    return str(path.relative_to(DOCS if DOCS in path.parents else ROOT))


def scripts():
    """What is run at a time: a block, or all of a framework's on a page, one after the other."""
    for path in TEXTS:
        if named(path) in ELSEWHERE:
            continue
        found = [b for b in blocks_of(path) if b.language == "python" and b.reason is None]
        for k, block in enumerate(b for b in found if not b.label):
            yield pytest.param([block.code], id=f"{named(path)}-{k}")
        going_on = sorted((b for b in found if len(b.label.split()) == 1), key=lambda b: b.label)
        for label, blocks in groupby(going_on, key=lambda b: b.label):
            yield pytest.param([b.code for b in blocks], id=f"{named(path)}-{label}")


SCRIPTS = list(scripts())


def needed(code):
    """The libraries that it imports, or our part for one."""
    usual = {each: rf"\b(import|from) {each}\b|\b(backends|models)\.{each}\b" for each in LIBRARIES}
    signs = usual | SIGNS
    return [library for library, sign in signs.items() if re.search(sign, code)]


@pytest.mark.parametrize("codes", SCRIPTS)
def test_blocks_run_as_printed(codes, capsys, tmp_path, monkeypatch):
    libraries = needed("\n".join(codes))
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed here")
    if "timm" in libraries:
        foreign("timm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = ModuleType("page")  # known by name, as the classes of a page need it
    monkeypatch.setitem(sys.modules, "page", page)
    for code in codes:
        exec(compile(code, "page", "exec"), vars(page))
        assert_printed(code, capsys.readouterr().out)


def assert_printed(code, shown):
    """What is printed is what the comments beside say."""
    printed = re.findall(r"print\(.*\)  # (.*)", code)
    numbers = [[float(x) for x in re.findall(r"\d\.\d+", text)] for text in printed]
    if printed:
        found = [float(x) for x in re.findall(r"\d\.\d+", shown)]
        assert found == pytest.approx([x for line in numbers for x in line])


@pytest.mark.parametrize("face", ["numpy", "torch", "jax", "tensorflow"])
def test_there_are_blocks_for_each_framework(face):
    codes = ["\n".join(param.values[0]) for param in SCRIPTS]
    assert sum(f"backends.{face}" in code for code in codes) >= (1 if face == "numpy" else 2)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_block_of_python_is_run_or_says_why_not(path):
    found = [block for block in blocks_of(path) if block.language == "python"]
    assert sum(b.reason is not None for b in found) == NOT_RUN.get(named(path), 0)
    if named(path) not in ELSEWHERE and path.parent.name != "guides":  # `test_loop_page.py`
        assert all(len(b.label.split()) < 2 for b in found)
    going_on = {b.label for b in found if len(b.label.split()) == 1}
    assert named(path) in ELSEWHERE or going_on <= set(FRAMEWORKS)


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_python_is_marked_as_such(path):
    for block in blocks_of(path):
        if not block.language:
            with pytest.raises(SyntaxError):
                compile(block.code, named(path), "exec")


def test_two_commands_do_all_setting_up_and_ci_runs_the_second():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    demo, tests = commands
    assert demo == f"{tests} -s demo"
    assert tests in (ROOT / ".ci" / "run").read_text()
    assert README.index(tests) < README.index("pip install 'loss-balance")


def without_code(path):
    return re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", path.read_text())


def slugs(path):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", path.read_text()))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {
        f"{one}-{n}" if n else one for k, one in enumerate(plain) for n in [plain[:k].count(one)]
    }


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_between_pages_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", without_code(path)):
        there = (path.parent / target) if target else path
        assert there.exists(), target
        assert not anchor or anchor in slugs(there), f"{target}#{anchor}"


def test_every_page_has_one_title_of_its_own():
    titles = [
        re.findall(r"(?m)^# (.*)$", re.sub(r"(?ms)^```.*?^```$", "", p.read_text())) for p in PAGES
    ]
    assert all(len(found) == 1 for found in titles)
    assert max(Counter(found[0] for found in titles).values()) == 1
