"""The features of a package that is about to be published."""

import orjson

from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.errors import InvalidPackage, InvalidRequest
from shared.domain.features import ModelFeatures, caller_signature
from shared.domain.signature import Signature
from shared.domain.validation import conform
from shared.schemas.manifest import Manifest


def features_of(manifest: Manifest, signature: Signature) -> ModelFeatures | None:
    """What the feature store fills of a model's own signature; None if the manifest names no features.

    Raises InvalidPackage if their example is no request of a caller. Where a package is served nobody needs it.
    """
    features = manifest.model_features()
    if features is not None and features.example is not None:
        seen = caller_signature(signature, features)
        try:
            body = orjson.dumps({"instances": [features.example]})
            conform(decode_instances(body, seen, JsonLimits()), seen)
        except InvalidRequest as error:
            raise InvalidPackage(f"The example of the manifest's features is no request: {error.detail}") from error
    return features
