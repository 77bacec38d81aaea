"""What installed packages bring that no function uses at run time."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from infra.packaging.errors import PackagingError

# Patterns for paths inside site-packages. A pattern that matches nothing stops the build: a new release moved
# something, and the artefact may have grown by what was left out before.
PATTERNS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (
        "onnxruntime/capi/libonnxruntime.so.*",  # a second copy for programs in C; the extension holds its own
        "onnxruntime/backend",
        "onnxruntime/datasets",
        "onnxruntime/quantization",
        "onnxruntime/tools",
        "onnxruntime/transformers",
    ),
    "numpy": (
        "numpy/*/tests",
        "numpy/tests",
        "numpy/_core/_simd.*.so",  # for NumPy's own tests
        "numpy/_core/include",
        "numpy/_core/lib",
        "numpy/f2py",
        "numpy/_pyinstaller",
        # Imported when somebody asks NumPy for them, and no step of a model does.
        "numpy/polynomial",
        "numpy/random",
        "numpy/testing",
        "numpy/_core/_multiarray_tests.*.so",
    ),
    # Tables, CSV and Parquet stay, and the libraries that their own ones are linked with.
    "pyarrow": (
        "pyarrow/include",
        "pyarrow/includes",
        "pyarrow/src",
        "pyarrow/tests",
        "pyarrow/interchange",
        "pyarrow/*.pxi",
        "pyarrow/libarrow_flight.so*",
        "pyarrow/libarrow_python_flight.so*",
        "pyarrow/libarrow_s3.so*",
        "pyarrow/libarrow_python_parquet_encryption.so*",
        "pyarrow/libarrow_python.so",  # copies: the one that is linked has one number
        "pyarrow/libarrow_python.so.*.*",
        *(
            f"pyarrow/_{name}.*.so"
            for name in (
                "acero",
                "azurefs",
                "dataset*",
                "feather",
                "flight",
                "gcsfs",
                "hdfs",
                "json",
                "orc",
                "parquet_encryption",
                "pyarrow_cpp_tests",
                "s3fs",
                "substrait",
            )
        ),
    ),
    # Idempotency and what it imports stay.
    "aws-lambda-powertools": (
        "aws_lambda_powertools/event_handler",
        *(
            f"aws_lambda_powertools/utilities/{name}"
            for name in (
                "auth_alpha",
                "batch",
                "circuit_breaker",
                "data_classes",
                "data_masking",
                "feature_flags",
                "kafka",
                "parameters",
                "parser",
                "streaming",
            )
        ),
    ),
    # The image step decodes PNG and JPEG only.
    "pillow": (
        "PIL/_avif.*.so",
        "PIL/_imagingcms.*.so",
        "PIL/_imagingft.*.so",
        "PIL/_imagingtk.*.so",
        "PIL/_webp.*.so",
    ),
    # Older interfaces, which nothing else in the package imports.
    "grpcio": ("grpc/beta", "grpc/framework"),
    # The documentation page is Swagger UI.
    "fastapi-offline": ("fastapi_offline/static/redoc*",),
}

_ALWAYS = ("*.pyi", "*.pxd", "*.pyx", "*.a", "*.h", "py.typed")
# Written by the installer: when, how and from where it installed. Names, entry points and licences stay.
_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "WHEEL")


def prune(site: Path, packages: frozenset[str]) -> None:
    """Remove from `site` what its `packages` do not need; PackagingError names a pattern that matches nothing."""
    for package in sorted(packages & PATTERNS.keys()):
        for pattern in PATTERNS[package]:
            matches = list(site.glob(pattern))
            if not matches:
                raise PackagingError(f"{package} has no {pattern} any more: look at what it has, and change prune.py.")
            for path in matches:
                _remove(path)
    _remove(site / "bin")
    for path in sorted(site.rglob("*")):
        if path.is_file() and _useless(path):
            path.unlink()
    _remove_unused_libraries(site)


def _useless(path: Path) -> bool:
    if path.parent.name.endswith(".dist-info") and path.name in _INSTALLER:
        return True
    return any(fnmatch(path.name, pattern) for pattern in _ALWAYS) or path.name == ".lock"


def _remove_unused_libraries(site: Path) -> None:
    """Remove bundled libraries (`*.libs/`) that no extension module needs, by itself or through another library.

    A library counts as needed where its file name stands in a shared object: the dynamic linker reads it there, and
    whatever else would load it by name. auditwheel's names carry a hash, so no other text is taken for one.
    """
    bundled = {path for path in site.glob("*.libs/*") if path.is_file()}
    waiting = [path for path in site.rglob("*.so*") if path.is_file() and path not in bundled]
    needed: set[Path] = set()
    while waiting:
        content = waiting.pop().read_bytes()
        found = {path for path in bundled - needed if path.name.encode() in content}
        needed |= found
        waiting.extend(found)
    for path in bundled - needed:
        path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
