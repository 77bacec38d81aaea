"""Settings of a deployable: one frozen `msgspec.Struct`, read once from the environment.

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        model_dir: Path = Path("/opt/ml/model")                                  # SLUICE_MODEL_DIR
        threads: Annotated[int, Meta(ge=1, le=256)] = 2                          # SLUICE_THREADS
        port: Annotated[int, Meta(ge=1, le=65_535)] = field(default=8080, name="SAGEMAKER_BIND_TO_PORT")

A field is read from the variable `SLUICE_` + its name in upper case, or from the one that `field(name=…)` gives. A
field that is a struct itself is read from a JSON object.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

PREFIX = "SLUICE_"

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class SettingsError(Exception):
    """The environment does not make valid settings. The message names each variable, never its value."""


def load(settings: type[SettingsT], environ: Mapping[str, str]) -> SettingsT:
    """The settings in `environ`; SettingsError names every variable that is missing or has an invalid value.

    A variable that is set to an empty string counts as unset: templates have no other way to leave one out.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in msgspec.structs.fields(settings):
        variable = variable_of(field)
        text = environ.get(variable, "").strip()
        try:
            if text:
                values[field.name] = _convert(text, field.type)
            elif field.required:
                problems.append(f"{variable} is not set")
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{variable}: {_explain(error, field.type)}")
    if problems:
        raise SettingsError("; ".join(problems))
    try:
        return settings(**values)
    except ValueError as error:  # a rule between fields, in the struct's __post_init__
        raise SettingsError(str(error)) from None


def variable_of(field: msgspec.structs.FieldInfo) -> str:
    """The environment variable that a field is read from."""
    return field.encode_name if field.encode_name != field.name else PREFIX + field.name.upper()


def _convert(text: str, type_: Any) -> Any:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        try:
            return msgspec.json.decode(text, type=type_)
        except msgspec.DecodeError as error:
            if isinstance(error, msgspec.ValidationError):
                raise
            raise ValueError("Not a JSON document") from None
    value = msgspec.convert(text, type_, strict=False, dec_hook=_decode)
    if isinstance(value, float) and not math.isfinite(value):  # passes every bound, since NaN compares with nothing
        raise ValueError("Expected a finite number")
    return value


def _decode(type_: type[Any], value: Any) -> Any:
    if type_ is Path:
        return Path(value)
    raise NotImplementedError(f"settings of type {type_} are not supported")


def _explain(error: Exception, type_: Any) -> str:
    """What is wrong, without the value: it may be a secret, and msgspec quotes what is none of the choices."""
    kind = msgspec.inspect.type_info(type_)
    if isinstance(kind, msgspec.inspect.EnumType):
        return f"expected one of {', '.join(repr(member.value) for member in kind.cls)}"
    if isinstance(kind, msgspec.inspect.LiteralType):
        return f"expected one of {', '.join(repr(value) for value in kind.values)}"
    message = str(error).removesuffix(" - at `$`").removesuffix(", got `str`")
    if message.startswith("Invalid enum value"):
        return "not one of the known values"
    return message[:1].lower() + message[1:]
