"""The REST API does what its OpenAPI document says, also with what nobody should send.

Schemathesis makes the requests from the document: the edges of every schema, values that break it,
and random ones, with a fixed seed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.hub_process import HubProcess

PROGRAM = Path(sys.executable).with_name("schemathesis")
REQUESTS = 1500
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
)
"""All but those that are wrong here. JSON Schema cannot say every rule, so some values that fit a
schema are refused; after some wrong tokens the answer is 429; and a path such as workers/define is
also that of a worker called so, whose methods Allow names too.
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    made = HubProcess(tmp_path / "hub")
    made.mortal = Path(__file__).with_name("fake_hub.py")
    made.start("never")
    yield made
    made.kill()


@pytest.mark.timeout(600)
def test_every_answer_is_one_that_the_document_names(hub: HubProcess, tmp_path: Path) -> None:
    argv = [PROGRAM, "run", f"{hub.url}/api/v1/openapi.json", "--no-color", "--seed", "1"]
    argv += ["-H", f"Authorization: Bearer {hub.token}", "-n", "5"]
    argv += ["--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS)]
    argv += ["--continue-on-failure", "--request-timeout", "60", "--max-failures", "20"]
    argv += ["--suppress-health-check", "all", "--warnings", "off"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) >= REQUESTS
