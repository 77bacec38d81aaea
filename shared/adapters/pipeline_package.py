"""Packages with a pipeline in place of a graph: a manifest that names published models, and no `model.onnx`.

A person may write such a manifest without the outer signature and without the steps' digests. Publishing fills in
both, so that the package's own digest covers its steps.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.adapters.onnx.package import MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE
from shared.adapters.package_features import features_of
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.errors import InvalidPackage, InvalidRequest
from shared.domain.model import ModelVersion, PackageDescription, Placement
from shared.domain.pipeline import Pipeline, Step
from shared.domain.pipeline_signature import outer_signature
from shared.domain.signature import Signature
from shared.domain.validation import conform
from shared.schemas.explain import explain
from shared.schemas.manifest import Manifest, ModelName, SignatureDocument
from shared.schemas.pipeline import PipelineDocument


class _Draft(BaseModel):
    """What of a manifest is needed before the steps are known; the rest is checked with the whole."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: ModelName
    version: int
    placement: Placement = Placement.FUNCTION
    signature: SignatureDocument | None = None
    pipeline: PipelineDocument


@dataclass(frozen=True, slots=True)
class PipelineDraft:
    """The manifest of a pipeline as it was written; `signature` may be missing, and so may the steps' digests."""

    document: Mapping[str, Any]
    name: str
    version: int
    placement: Placement
    pipeline: Pipeline
    signature: Signature | None
    any_max_batch: bool

    def complete(self, signatures: Mapping[str, Signature], digests: Mapping[str, str] | None = None) -> Manifest:
        """The whole manifest, given what the steps take and give, and their digests if there are some, by name.

        InvalidPackage names the step or the field that is wrong.
        """
        return _validated(self.completed(signatures, digests or {}))

    def completed(self, signatures: Mapping[str, Signature], digests: Mapping[str, str]) -> dict[str, Any]:
        """As `complete`, as the document that is published."""
        signature = outer_signature(
            self.pipeline, signatures, self.signature, any_max_batch=self.any_max_batch or self.signature is None
        )
        document = dict(self.document)
        if self.signature is None or self.any_max_batch:
            shown = SignatureDocument.from_signature(signature).model_dump(mode="json", exclude_defaults=True)
            document["signature"] = {**shown, "max_batch": signature.max_batch}
        block = document["pipeline"]
        steps = [
            {**written, "digest": digests[step.name]} if step.name in digests else written
            for written, step in zip(block["steps"], self.pipeline.steps, strict=True)
        ]
        document["pipeline"] = {**block, "steps": steps}
        return document


def read_draft(folder: Path) -> PipelineDraft | None:
    """The manifest of a pipeline, None for any other package; InvalidPackage says which fields are wrong."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InvalidPackage(f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes.")
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidPackage(f"{MANIFEST_FILE} is not JSON: {error}.") from None
    if not isinstance(document, dict) or document.get("pipeline") is None:
        return None
    if (folder / MODEL_FILE).exists():
        raise InvalidPackage(f"A package has either a pipeline or a {MODEL_FILE}; this one has both.")
    try:
        draft = _Draft.model_validate(document)
    except ValidationError as error:
        raise InvalidPackage(f"{MANIFEST_FILE}: {explain(error)}") from None
    given = draft.signature
    return PipelineDraft(
        document=document,
        name=draft.name,
        version=draft.version,
        placement=draft.placement,
        pipeline=draft.pipeline.to_pipeline(),
        signature=None if given is None else given.to_signature(),
        any_max_batch=given is not None and "max_batch" not in given.model_fields_set,
    )


class PipelinePackageReader:
    """Implements `shared.domain.ports.PipelineReader`."""

    def read(self, folder: Path) -> Pipeline | None:
        """The pipeline of a package, None for one that is none; InvalidPackage says what is wrong."""
        draft = read_draft(folder)
        return None if draft is None else draft.pipeline

    def complete(self, folder: Path, steps: Mapping[str, ModelVersion], whole: Path) -> PackageDescription:
        """Check the pipeline in `folder` against its steps, and write the package as it is published to `whole`.

        The same folder and steps always give the same bytes. InvalidPackage names the step and the field.
        """
        draft = read_draft(folder)
        if draft is None:
            raise InvalidPackage(f"{folder.name} has no {MANIFEST_FILE} with a pipeline.")
        for step in draft.pipeline.steps:
            _check_step(step, steps[step.name], draft.placement)
        signatures = {name: version.signature for name, version in steps.items()}
        document = draft.completed(signatures, {name: version.digest for name, version in steps.items()})
        manifest = _validated(document)
        signature = manifest.signature.to_signature()
        _check_example(manifest, signature)
        shutil.copytree(folder, whole)
        (whole / MANIFEST_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return PackageDescription(
            model=manifest.name,
            version=manifest.version,
            signature=signature,
            placement=manifest.placement,
            metadata=manifest.metadata(),
            features=features_of(manifest, signature),
            pipeline=PipelineDocument.model_validate(document["pipeline"]).to_pipeline(),
        )


def _check_step(step: Step, version: ModelVersion, placement: Placement) -> None:
    label = step.label[0].upper() + step.label[1:]
    if version.pipeline is not None:
        raise InvalidPackage(f"{label} is a pipeline itself: name its steps in its place.")
    if version.placement is not placement:
        raise InvalidPackage(
            f"{label} runs in the {version.placement}, and the pipeline in the {placement}: placement must be the "
            "same for all, since they run in one place."
        )
    if step.digest and step.digest != version.digest:
        raise InvalidPackage(f"{label} is published with the digest {version.digest}, not {step.digest}.")


def _check_example(manifest: Manifest, signature: Signature) -> None:
    if manifest.example is None:
        return
    try:
        body = orjson.dumps({"instances": [manifest.example]})
        conform(decode_instances(body, signature, JsonLimits()), signature)
    except InvalidRequest as error:
        raise InvalidPackage(f"The pipeline does not take the example of its manifest: {error.detail}") from error


def _validated(document: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise InvalidPackage(f"{MANIFEST_FILE}: {explain(error)}") from None
