"""The version of Sluice itself, told to clients; a deployed function has no installed distribution to ask."""

from typing import Final

VERSION: Final = "0.1.0"
