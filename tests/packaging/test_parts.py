"""The parts of a build, each with small inputs of its own."""

import os
from collections import Counter
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from infra.packaging.archive import entries_of, write_zip
from infra.packaging.code import closure
from infra.packaging.errors import PackagingError
from infra.packaging.interpreter import find_interpreter
from infra.packaging.platforms import PLATFORMS
from infra.packaging.prune import prune
from infra.packaging.requirements import direct_requirements, imported, own_uv, parse, select
from infra.packaging.sizes import MB, Artefact, Deployed, check_limits
from infra.packaging.template import Template
from tests.conftest import ROOT

LOCK = ROOT / "requirements" / "lock.txt"
TEMPLATE = """\
# A comment that stays.
Parameters:
  Architecture: { Type: String, Default: x86_64, AllowedValues: [x86_64, arm64] }
Globals:
  Function: { CodeUri: ., Layers: [!Ref WebLayer] }
Resources:
  WebLayer:
    Type: AWS::Serverless::LayerVersion
    Properties:
      ContentUri: build/layers/web
      CompatibleArchitectures: [!Ref Architecture]
  OnnxLayer:
    Type: AWS::Serverless::LayerVersion
    Properties: { ContentUri: build/layers/onnx }
  Block:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.block.handler.handler
      Layers: [!If [Wanted, !Ref OnnxLayer, !Ref AWS::NoValue]]
  Flow:
    Type: AWS::Serverless::Function
    Properties: { Handler: functions.flow.handler.handler, CodeUri: ./elsewhere }
  Inline:
    Type: AWS::Serverless::Function
    Properties: { Handler: index.handler, InlineCode: "pass" }
  Part:
    Type: AWS::CloudFormation::Stack
    Properties: { TemplateURL: infra/part.yaml }
"""
LAZY = """\
if TYPE_CHECKING:
    import shared.room.other

def later():
    import shared.room.lazy

KINDS = {"one": "shared.room.by_name", "two": "shared.room.nothing", "three": "shared.room.other is in this text"}
"""
PART = """\
Resources:
  Inner:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.inner.handler.handler
      CodeUri: ..
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_an_archive_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"b.py": "2", "a/c.py": "1"})
    second = write(tmp_path / "second", {"a/c.py": "1", "b.py": "2"})
    os.utime(second / "b.py", (0, 0))
    (second / "b.py").chmod(0o700)
    digest = write_zip(entries_of(first), tmp_path / "first.zip")
    assert digest == write_zip(entries_of(second), tmp_path / "second.zip")
    (second / "b.py").write_text("3")
    assert digest != write_zip(entries_of(second), tmp_path / "third.zip")


def test_a_template_gets_the_artefacts_and_stays_the_same_otherwise(tmp_path: Path) -> None:
    root = write(tmp_path, {"template.yaml": TEMPLATE, "infra/part.yaml": PART})
    template = Template(root, root / "template.yaml")
    (part,) = template.nested()
    assert [(each.name, each.layers) for each in template.functions()] == [
        ("Block", ("web", "onnx")),
        ("Flow", ("web",)),
    ]
    assert [each.name for each in part.functions()] == ["part-Inner"]

    text = template.staged("arm64")
    staged, written = yaml_parse(text), yaml_parse(TEMPLATE)
    resources = staged["Resources"]
    assert resources["Block"]["Properties"].pop("CodeUri") == "code/Block.zip"
    assert resources["Flow"]["Properties"]["CodeUri"] == "code/Flow.zip"
    assert resources["WebLayer"]["Properties"]["ContentUri"] == "layers/web.zip"
    assert resources["OnnxLayer"]["Properties"]["ContentUri"] == "layers/onnx.zip"
    assert staged["Parameters"]["Architecture"] == {"Type": "String", "Default": "arm64", "AllowedValues": ["arm64"]}
    inner = yaml_parse(part.staged("arm64"))["Resources"]["Inner"]["Properties"]
    assert inner["CodeUri"] == "../code/part-Inner.zip"

    for name, key in (("Flow", "CodeUri"), ("WebLayer", "ContentUri"), ("OnnxLayer", "ContentUri")):
        resources[name]["Properties"][key] = written["Resources"][name]["Properties"][key]
    staged["Parameters"] = written["Parameters"]
    assert staged == written
    assert text.startswith("# A comment that stays.\n")


def test_a_template_nests_only_what_is_there(tmp_path: Path) -> None:
    root = write(tmp_path, {"template.yaml": TEMPLATE})
    with pytest.raises(PackagingError, match=r"Part nests part\.yaml"):
        Template(root, root / "template.yaml").nested()


def test_a_function_is_what_its_handler_reaches(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "functions/__init__.py": "",
            "functions/f/__init__.py": "",
            "functions/f/handler.py": "from shared import direct\n",
            "functions/f/page.html": "",
            "functions/g/handler.py": "",
            "shared/__init__.py": "",
            "shared/direct.py": LAZY,
            "shared/room/__init__.py": "",
            "shared/room/lazy.py": "",
            "shared/room/other.py": "",
            "shared/room/by_name.py": "",
        },
    )
    assert sorted(closure(root, "functions.f.handler.handler")) == [
        "functions/__init__.py", "functions/f/__init__.py", "functions/f/handler.py", "functions/f/page.html",
        "shared/__init__.py", "shared/direct.py", "shared/room/__init__.py", "shared/room/by_name.py",
        "shared/room/lazy.py",
    ]  # fmt: skip
    with pytest.raises(PackagingError, match=r"functions\.h\.handler\.handler"):
        closure(root, "functions.h.handler.handler")


def test_a_layer_holds_what_is_imported_and_not_lambdas() -> None:
    asked = direct_requirements(ROOT / "pyproject.toml", "onnx")
    names = {requirement.partition(">")[0] for requirement in asked}
    assert {"boto3", "numpy", "pillow", "tokenizers"} <= names
    kept = imported(asked, frozenset({"PIL", "numpy", "boto3", "tokenizers"}), frozenset())
    assert [requirement.partition(">")[0] for requirement in kept] == ["numpy", "pillow"]
    with pytest.raises(PackagingError, match="nothing"):
        direct_requirements(ROOT / "pyproject.toml", "nothing")


def test_what_is_installed_is_pinned_by_the_lock(tmp_path: Path) -> None:
    chosen = select(own_uv(), LOCK, ["pydantic", "numpy"], PLATFORMS["arm64"])
    assert set(chosen) == {
        "annotated-types",
        "numpy",
        "pydantic",
        "pydantic-core",
        "typing-extensions",
        "typing-inspection",
    }
    locked = parse(LOCK.read_text())
    assert all(line.split()[0] in {entry.split()[0] for entry in locked[name]} for name, line in chosen.items())
    without = tmp_path / "lock.txt"
    without.write_text(
        "\n".join(entry for name, entries in locked.items() if name != "pydantic-core" for entry in entries)
    )
    with pytest.raises(PackagingError, match=r"pydantic-core is not in lock\.txt"):
        select(own_uv(), without, ["pydantic"], PLATFORMS["arm64"])


def test_pruning_leaves_libraries_that_are_needed(tmp_path: Path) -> None:
    site = write(
        tmp_path,
        {
            "p/_extension.so": "needs libone-1.so",
            "p.libs/libone-1.so": "libone-1.so needs libtwo-2.so",
            "p.libs/libtwo-2.so": "libtwo-2.so",
            "p.libs/libthree-3.so": "libthree-3.so needs libfour-4.so",
            "p.libs/libfour-4.so": "libfour-4.so needs libthree-3.so",
            "p/stub.pyi": "",
            "p-1.dist-info/RECORD": "",
            "p-1.dist-info/entry_points.txt": "",
            "bin/tool": "",
        },
    )
    prune(site, frozenset({"p"}))
    assert sorted(entries_of(site)) == [
        "p-1.dist-info/entry_points.txt", "p.libs/libone-1.so", "p.libs/libtwo-2.so", "p/_extension.so",
    ]  # fmt: skip


def test_a_pattern_that_matches_nothing_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="fastapi-offline has no"):
        prune(tmp_path, frozenset({"fastapi-offline"}))


def test_an_artefact_over_the_limit_is_named_with_what_is_large_in_it() -> None:
    packages = {f"package{size}": size * MB for size in range(1, 11)}
    function = Deployed("BigFunction", (Artefact("BigFunction", "", 0, Counter(packages)),))
    with pytest.raises(PackagingError) as caught:
        check_limits([function])
    message = str(caught.value)
    assert "BigFunction is 55.0 MB with its layers, and may be 40.0 MB" in message
    assert "package10 10.0 MB, package9 9.0 MB, package8 8.0 MB, package7 7.0 MB, package6 6.0 MB." in message
    assert "package5" not in message
    large = Deployed("PredictFunction", (*function.parts, Artefact("onnx", "", 0, Counter())))
    larger = Deployed("BatchRunnerFunction", (*large.parts, Artefact("parquet", "", 0, Counter())))
    check_limits([large, larger])
    assert function.limit < large.limit < larger.limit


def test_a_name_for_nothing_is_no_interpreter(tmp_path: Path) -> None:
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    nowhere = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert find_interpreter(None, nowhere) is None
    with pytest.raises(PackagingError, match="PYTHON313"):
        find_interpreter(None, nowhere | {"PYTHON313": str(shim)})


def test_another_version_is_not_taken_for_the_runtimes(tmp_path: Path) -> None:
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\necho cpython-312 3.12.9\n")
    shim.chmod(0o755)
    assert find_interpreter(None, {"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None
