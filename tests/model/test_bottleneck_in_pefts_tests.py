"""PEFT's own tests/test_custom_models.py, run with our tuner in place of its methods.

They are not in PEFT's wheel: point TUNESMITH_PEFT_TESTS at the root of a checkout of huggingface/peft.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("TUNESMITH_PEFT_TESTS", "")
OURS = """
import sys
import types

import pytest

if "diffusers" not in sys.modules:  # only asked whether a model is one of its pipelines
    sys.modules["diffusers"] = types.SimpleNamespace(StableDiffusionPipeline=type("StableDiffusionPipeline", (), {}))
from tests import test_custom_models as theirs, testing_common
from tests.test_custom_models import TestPeftCustomModel
from tunesmith.model.methods.bottleneck_peft import BottleneckConfig

FORMS = {"output": {}, "input": {"reads": ""}, "gelu": {"activation": "gelu", "scaling": 4.0, "reduction": 0.5}}
PLACES = {
    "MLP": [["lin0"], ["lin1"], ["lin0", "lin1"], "lin0"],
    "MLP2": [["lin1"], ["lin0", "lin1"]],
    "EmbConv1D": [["conv1d"], ["lin0"], ["conv1d", "lin0"]],
}
CASES = [
    (f"Bottleneck {form} {model} {places}", model, BottleneckConfig, {"target_modules": places, "width": 4, **values})
    for form, values in FORMS.items()
    for model, several in PLACES.items()
    for places in several
]
kept = {"target_modules": ["lin0"], "modules_to_save": ["lin1"], "width": 4, "activation": "gelu"}
CASES += [("Bottleneck kept", "MLP", BottleneckConfig, kept)]
theirs.TEST_CASES[:] = CASES  # the list that their parametrize marks hold


def no_merging(model_id, config_cls, config_kwargs):
    pytest.skip("bottleneck adapters cannot be merged")


theirs._skip_if_merging_not_supported = testing_common._skip_if_merging_not_supported = no_merging
"""


@pytest.mark.slow
@pytest.mark.skipif(not SOURCE, reason="TUNESMITH_PEFT_TESTS is not set: PEFT's tests are not in its wheel")
def test_pefts_tests_of_custom_models_pass(tmp_path: Path) -> None:
    shutil.copytree(Path(SOURCE) / "tests", tmp_path / "tests")
    (tmp_path / "tests" / "test_ours.py").write_text(OURS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-k", "Bottleneck", "--maxfail=5", "tests/test_ours.py"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 500, done.stdout[-500:]
