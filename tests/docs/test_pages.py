"""The README and every page of docs/: snippets run as printed, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from support.networks.backbones import foreign

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Their blocks go on from one another: `test_loop_page.py`, tests/multiprocess and
# tests/integrations see to them.
RUN_ELSEWHERE = {
    *("training-loop.md", "distributed-torch.md", "distributed-jax.md"),
    *("distributed-tensorflow.md", "cluster.md", "integrations.md"),
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ONNX = r"loss_balance\.reference_models(\.| import )onnx"
SIGNS = {"onnxruntime": ONNX, "onnxscript": ONNX}  # that a snippet needs a library
IN_ONE = {"anytime.md"}  # its blocks go on from one another too, all the way down
FENCE = re.compile(r"```(\w*)[^\n]*\n(.*?)```", re.DOTALL)


def snippets():
    for page in PAGES:
        if page.name in RUN_ELSEWHERE:
            continue
        codes = [code for kind, code in FENCE.findall(page.read_text()) if kind == "python"]
        if page.name in IN_ONE:
            codes = ["\n".join(codes)]
        yield from (pytest.param(code, id=f"{page.stem}-{k}") for k, code in enumerate(codes))


SNIPPETS = list(snippets())


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs_as_printed(snippet, capsys):
    for library in ("torch", "keras", "tensorflow", "jax", "timm", "onnxruntime", "onnxscript"):
        imported = re.search(SIGNS.get(library, rf"\b(import|from) {library}\b"), snippet)
        if imported and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed here")
        if imported and library == "timm":
            foreign(library)
    exec(compile(snippet, "page", "exec"), {"__name__": "page"})
    printed = re.findall(r"print\(.*\)  # (.*)", snippet)
    numbers = [[float(x) for x in re.findall(r"\d\.\d+", text)] for text in printed]
    shown = [float(x) for x in re.findall(r"\d\.\d+", capsys.readouterr().out)]
    if printed:
        assert shown == pytest.approx([x for line in numbers for x in line])


@pytest.mark.parametrize("face", ["numpy", "torch", "jax", "tensorflow"])
def test_there_are_snippets_for_each_framework(face):
    codes = [param.values[0] for param in SNIPPETS]
    assert sum(f"backends.{face}" in code for code in codes) >= (1 if face == "numpy" else 2)


def test_two_commands_do_all_setting_up_and_ci_runs_the_second():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    demo, tests = commands
    assert demo == f"{tests} -s demo"
    assert tests in (ROOT / ".ci" / "run").read_text()
    assert README.index(tests) < README.index("pip install 'loss-balance")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}
