"""Functions are deployed without simdjson: everything is read all the same, strictly."""

import json
import subprocess
import sys

from tests.conftest import ROOT

_READ = """
import json, sys
sys.modules["simdjson"] = None  # an import of it fails as if it were not installed
from shared.codecs.content.formats import request_format, v2_format
from shared.codecs.json_documents import JsonLimits
from shared.domain.dtypes import DType
from shared.domain.signature import Signature, TensorSpec
signature = Signature((TensorSpec("x", DType.FP32, (None, 2)),), (TensorSpec("y", DType.FP32, (None, 2)),), max_batch=4)
limits = JsonLimits(1000, 8, 100)
plain = request_format("application/json", {}).decode(b'{"instances": [[1, 2.5], [3, 4]]}', signature, limits)
body = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}]}'
v2 = v2_format("application/json", {}).decode(body, signature, limits)
print(json.dumps([each.inputs.tensors["x"].tolist() for each in (plain, v2)]))
"""


def test_plain_and_v2_bodies_are_read() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READ], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[[1, 2.5], [3, 4]], [[1, 2.5]]]
