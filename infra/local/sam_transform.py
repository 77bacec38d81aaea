"""The SAM transform (`AWS::Serverless-2016-10-31`) of a template file, through AWS's own translator, with a cache.

Importing and running the translator takes more than a second, so its result is kept under a folder, keyed by what it
depends on: the text of the template, the parameters and the translator's version.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from infra.local.intrinsics import TemplateError

SAM: Final = "AWS::Serverless-2016-10-31"
_CODE_BUCKET: Final = "local-code"
_FORMAT: Final = "1"
_CACHED_TEMPLATES: Final = 32


def transform(path: Path, parameters: Mapping[str, str], cache_dir: Path | None) -> dict[str, Any]:
    """The CloudFormation template that `path` (YAML or JSON) stands for.

    Local `CodeUri` folders come back through `code_folder`. Raises `TemplateError` when the file cannot be read or
    translated.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"The template {path} cannot be read: {error}") from error
    key = json.dumps([_FORMAT, version("aws-sam-translator"), text, sorted(parameters.items())])
    cached = cache_dir / f"{hashlib.sha256(key.encode()).hexdigest()}.json" if cache_dir is not None else None
    if cached is not None and (template := _read(cached)) is not None:
        return template
    template = _translate(path, text, parameters)
    if cached is not None:
        _write(cached, template)
    return template


def code_folder(code: Mapping[str, Any]) -> str | None:
    """The local folder behind a function's `Code` property; None where the code is something else."""
    return unquote(code["S3Key"]) if code.get("S3Bucket") == _CODE_BUCKET else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        template = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # not there, or cut off by a full disk: translate again
        return None
    return template if isinstance(template, dict) else None


def _write(path: Path, template: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(template), encoding="utf-8")
    partial.replace(path)
    newest_first = sorted(path.parent.glob("*.json"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for stale in newest_first[_CACHED_TEMPLATES:]:
        stale.unlink(missing_ok=True)


def _translate(path: Path, text: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    # Imported here because the cache exists to save just this.
    import yaml
    from samtranslator.model.exceptions import ExceptionWithMessage
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.yaml_helper import intrinsics_multi_constructor

    from infra.local.aws_client import isolated_session

    class Loader(yaml.CSafeLoader):
        """As the translator's own, with the parser in C: several times as quick."""

    Loader.add_multi_constructor("!", intrinsics_multi_constructor)
    try:
        template = yaml.load(text, Loader)  # noqa: S506  # a safe loader
    except (yaml.YAMLError, ValueError) as error:
        raise TemplateError(f"The template {path} is not valid YAML or JSON: {error}") from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise TemplateError(f"The template {path} has no Resources.")
    transforms = template.get("Transform", [])
    transforms = transforms if isinstance(transforms, list) else [transforms]
    if unknown := [str(name) for name in transforms if name != SAM]:
        raise TemplateError(f"{path}: the local runtime does not know the transform {', '.join(unknown)}.")
    if not transforms:
        return _plain(template)
    _replace_local_code(template)
    # It says for each gradual deployment that AWS's own feature switches are not on this machine.
    logging.getLogger("samtranslator.feature_toggle").setLevel(logging.ERROR)
    translator = Translator({}, Parser(), boto_session=isolated_session())
    try:
        translated = translator.translate(template, dict(parameters))
    except ExceptionWithMessage as error:
        causes = getattr(error, "causes", None) or [error]
        raise TemplateError(f"{path}: {'; '.join(str(cause.message) for cause in causes)}") from error
    finally:
        translator.metrics.publish()  # to nowhere; it warns otherwise
    return _plain(translated)


def _plain(template: Mapping[str, Any]) -> dict[str, Any]:
    """Through JSON, so that a fresh translation and a cached one are the same values (YAML has dates)."""
    plain: dict[str, Any] = json.loads(json.dumps(template, default=str))
    return plain


def _replace_local_code(template: dict[str, Any]) -> None:
    """The translator takes S3 addresses only, so each local folder travels as the key of a made-up bucket."""
    owners = [template.get("Globals", {}).get("Function", {})]
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {}) if isinstance(resource, dict) else {}
        if not isinstance(properties, dict):
            continue
        if resource.get("Type") == "AWS::Serverless::Application" and not isinstance(properties.get("Location"), str):
            raise TemplateError(f"Resources.{logical_id}: only a local path is supported as Location.")
        owners.append(properties)
    for owner in owners:
        for name in ("CodeUri", "ContentUri"):
            uri = owner.get(name)
            if isinstance(uri, str) and not uri.startswith(("s3://", "http://", "https://")):
                owner[name] = f"s3://{_CODE_BUCKET}/{quote(uri, safe='')}"
