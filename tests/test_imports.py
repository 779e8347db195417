"""No module of ours imports itself through others; import-linter sees circles of siblings only."""

from __future__ import annotations

import graphlib

import grimp
import pytest


@pytest.mark.parametrize("package", ["hostler_agent", "hostler_hub"])
def test_no_circle_between_modules(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)
    imports = {each: graph.find_modules_directly_imported_by(each) for each in graph.modules}
    assert len(imports) > 50
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
