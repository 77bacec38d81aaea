"""Entry point of what fetches the answers of asynchronous endpoints: all that happens at import time happens here."""

import os

from functions.async_result.bootstrap import build

handler = build(os.environ)
