"""The example configurations of endpoints fit the example models, and one that was changed would not."""

from pathlib import Path

import pytest

from examples.catalogue import ROOT, TOOLS, VERSION
from infra.cli.endpoint_files import read_files
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.onnx.package import OnnxPackage
from shared.domain.errors import OutOfRange
from shared.usecases.manage_endpoints import ManageEndpoints
from tests.examples.conftest import Folder, Load
from tests.fakes import InMemoryEndpoints, InMemoryModels
from tests.functions.support import published

ENDPOINTS = ROOT / "examples" / "endpoints"
FILES = sorted(ENDPOINTS.glob("*.yaml"))


@pytest.fixture(scope="module")
def manage(load: Load, folder: Folder) -> ManageEndpoints:
    """The example models as they are published, and nothing stored."""
    packages: dict[str, OnnxPackage] = {name: load(name) for name in TOOLS}
    models = InMemoryModels(*(published(name, VERSION, signature=packages[name].signature) for name in packages))
    return ManageEndpoints(InMemoryEndpoints(), Registry(Resources()), models)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_can_be_applied(file: Path, manage: ManageEndpoints) -> None:
    (found,) = read_files([str(file)])
    stored, plan = manage.put(found.config, expected=None, by="test", dry_run=True)
    assert stored.config.endpoint in TOOLS
    assert plan


def test_there_is_an_example_of_each_kind_and_the_page_names_it() -> None:
    assert [file.stem for file in FILES] == ["canary", "experiment", "fallback-and-cache", "remote-backend", "shadow"]
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert all(f"endpoints/{file.name}" in page for file in FILES)


def test_a_static_answer_must_have_the_outputs_of_the_model(manage: ManageEndpoints, tmp_path: Path) -> None:
    text = (ENDPOINTS / "fallback-and-cache.yaml").read_text(encoding="utf-8")
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace("benign: 0.5", "harmless: 0.5"), encoding="utf-8")
    (found,) = read_files([str(changed)])
    with pytest.raises(OutOfRange, match="/fallback/2/outputs/probabilities/harmless: is not a class"):
        manage.put(found.config, expected=None, by="test", dry_run=True)
