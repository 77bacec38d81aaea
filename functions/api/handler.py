"""Entry point of the catalogue and the documentation: everything that happens at import time happens here."""

import os

from functions.api.bootstrap import build

handler = build(os.environ)
