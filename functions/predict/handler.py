"""Entry point of the data plane: everything that happens at import time happens here."""

import os

from functions.predict.bootstrap import build

handler = build(os.environ)
