"""Entry point of the check before a release: everything that happens at import time happens here."""

import os

from functions.release_check.bootstrap import build

handler = build(os.environ)
