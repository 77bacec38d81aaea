"""Entry point of the job worker: everything that happens at import time happens here."""

import os

from functions.job_worker.bootstrap import build

handler = build(os.environ)
