"""The contract of all functions as one document, and the page that shows it without a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
from fastapi.openapi.docs import get_swagger_ui_html

from functions.api.model_contract import operation
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import NotFound
from shared.domain.ports import ModelRegistry

# Written by `python -m infra.openapi` from the routes of every function; functions cannot import one another.
CONTRACT = Path(__file__).with_name("openapi.json")
PREDICT_PATH = "/v1/models/{model}/predict"
# With more models than this the document would outgrow Lambda's 6 MB answer; the general operation covers the rest.
MAX_MODELS = 250

_ASSETS: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
# Nothing but what this origin serves: a page that needs the network would show it here, not at a user's.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    content: bytes
    media_type: str


@dataclass
class Contract:
    """The OpenAPI document, with an operation for every published model; renewed every `ttl_s` seconds.

    `config_of` gives the configuration of an endpoint: what its response filter hides is hidden here, too.
    """

    registry: ModelRegistry
    config_of: Callable[[str], EndpointConfig]
    ttl_s: float
    _document: bytes = b""
    _expires: float = field(default=0.0)

    def document(self) -> bytes:
        """The document as JSON; BackendError while models or configurations cannot be read."""
        if not self._document or monotonic() >= self._expires:
            self._document = self._render()
            self._expires = monotonic() + self.ttl_s
        return self._document

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(CONTRACT.read_bytes())
        return document

    def _render(self) -> bytes:
        general = self._fixed["paths"][PREDICT_PATH]["post"]
        models = {}
        for version in self.registry.models()[:MAX_MODELS]:
            made = operation(version, self.config_of(version.model), general)
            models[PREDICT_PATH.format(model=version.model)] = {"post": made}
        return orjson.dumps({**self._fixed, "paths": {**self._fixed["paths"], **models}})


def page() -> bytes:
    """The page as HTML; its addresses are relative, so that it also works below a stage's name."""
    response = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Sluice",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
    )
    return bytes(response.body)


def asset(name: str) -> Asset:
    """One file of the page; NotFound for any name that is not on the list."""
    media_type = _ASSETS.get(name)
    if media_type is None:
        raise NotFound("The page has no such file.")
    return Asset((_static_folder() / name).read_bytes(), media_type)


def _static_folder() -> Path:
    spec = find_spec("fastapi_offline")  # found, not imported: only its files are wanted
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The package fastapi-offline, which holds the files of the page, is not installed.")
    return Path(spec.submodule_search_locations[0]) / "static"
