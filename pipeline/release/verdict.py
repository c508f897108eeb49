"""``gate.json`` as a closed form: its verdict, reasons and sentences follow from the numbers of its checks, and the rest is typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.release import contents
from pipeline.release.bounded import Damage, json_value
from privacy import gate as privacy_gate
from privacy import limits

Verdict = Literal["pass", "fail", "inconclusive", "not judged"]


def read_gate(path: Path) -> dict[str, Any]:
    """A ``gate.json`` whose verdict, reasons and texts follow from the numbers of its checks. Raises Damage for any other."""
    if path.is_symlink():
        raise Damage("is a link")
    if path.exists() and not path.is_file():
        raise Damage("is not a file")
    gate = json_value(path)
    if isinstance(gate, dict) and (version := gate.get("gate_version")) != limits.GATE_VERSION and type(version) in (int, type(None)):
        raise Damage(
            f"was judged by version {version or 1} of the gate, and this is {limits.GATE_VERSION}: verify it with the software of its time"
        )
    if not isinstance(gate, dict) or tuple(gate) != contents.GATE_KEYS:
        raise Damage("has other keys than a verdict")
    if not isinstance(gate["checks"], list) or not isinstance(gate["replication"], bool):
        raise Damage("holds no checks, or does not say whether the run is a replication")
    attempt = gate["attempt"]
    if not (gate["replication"] if attempt is None else type(attempt) is int and 1 <= attempt < 1 << 31):
        raise Damage("has an attempt of another form")
    try:
        decided = privacy_gate.decide(gate["checks"], attempt=attempt, replication=gate["replication"])
        contradictions = privacy_gate.contradictions(gate["checks"])
    except ValueError as error:
        raise Damage(f"does not hold together: {error}") from None
    differs = [name for name, value in decided.items() if gate[name] != value] + contradictions
    if differs:
        raise Damage(f"contradicts itself: {differs[0]} does not follow from its checks" if differs[0] in decided else differs[0])
    _check_bound(gate)
    return gate


def _check_bound(gate: Mapping[str, Any]) -> None:
    """Raise Damage unless what the verdict is bound to has the right form."""
    digests = gate["digests"]
    if not isinstance(digests, dict) or tuple(digests) != contents.DIGEST_KEYS:
        raise Damage("is not bound to images, weights, pixels and rows")
    bound = [value for subject, value in digests.items() if subject != "weights" or value is not None]
    forms = [
        all(isinstance(value, str) and contents.DIGEST.fullmatch(value) for value in bound),
        isinstance(gate["release"], str) and contents.RELEASE_ID.fullmatch(gate["release"]),
        isinstance(gate["software"], str) and contents.SOFTWARE.fullmatch(gate["software"]),
    ]
    if not all(forms):
        raise Damage("has a digest, an id or a version of another form")


def weights_verdict(run: Path, record: Mapping[str, Any]) -> Verdict:
    """What the run's release says of the weights of a train record; ``not judged`` where it is none of ours, or says it of others."""
    try:
        gate = read_gate(run / "release" / contents.GATE)
    except (Damage, OSError):
        return "not judged"
    bound = contents.judged_digest(gate["release"], "weights", record["files"])
    verdict: Verdict = gate["weights"]["verdict"] if bound == gate["digests"]["weights"] else "not judged"
    return verdict
