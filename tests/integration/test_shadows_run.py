"""A whole run with shadow trainings: what they find reaches the gate, and nothing of the trainings stays."""

import json

import pytest

from pipeline import api
from privacy import gate
from tests.integration.small import quick


@pytest.mark.slow
def test_what_shadow_trainings_find_is_what_the_gate_judges(tmp_path):
    config = tmp_path / "shadowed.yaml"
    config.write_text(quick(tmp_path).read_text() + "shadows: {trainings: 4}\n")
    outcome = api.run(str(config), settings=["train.images=640"], out=tmp_path / "run")
    assert outcome.verdict in ("fail", "inconclusive"), "four trainings clear nobody"
    found = json.loads((tmp_path / "run" / "shadows" / "shadows.json").read_text())
    audit = json.loads((tmp_path / "run" / "audit" / "audit.json").read_text())
    assert audit["shadows"] == found
    judged = json.loads((tmp_path / "run" / "release" / "gate.json").read_text())
    assert gate.checks(audit) == judged["checks"]
    for check in judged["checks"]:
        if check["name"].startswith("membership"):
            side = found[check["subject"]]
            assert check["value"] == pytest.approx(side["auc"]["value"], abs=1e-4), "published to four places"
            assert check["trainings"] == 4
            assert check["verdict"] != "pass"
    kept = {path.suffix for path in (tmp_path / "run" / "shadows").rglob("*") if path.is_file()}
    assert not kept & {".safetensors", ".npz", ".npy", ".pt"}, "no weights and no features of a shadow stay"
