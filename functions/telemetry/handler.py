"""Entry point of telemetry: everything that happens at import time happens here."""

import os

from functions.telemetry.bootstrap import build

handler = build(os.environ)
