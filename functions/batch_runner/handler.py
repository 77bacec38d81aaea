"""Entry point of the batch runner: everything that happens at import time happens here."""

import os

from functions.batch_runner.bootstrap import build

handler = build(os.environ)
