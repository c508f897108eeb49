"""Two small configurations: one that passes the gate, and one that is merely quick."""

from pathlib import Path

PATIENTS = 620
"""Of whom 0.8 x 0.65 are sealed: as many as the gate asks for, and a few more."""
TEXT = """
name: {name}
seed: 0
anyway: {anyway}
ingest: {{source: phantom, phantom_patients: {patients}, size: 32, audit_share: {sealed}, val_share: 0.1, test_share: 0.1}}
train: {{images: {images}, batch: 32, widths: [16, 32], blocks: 1, attention: [], augment: 0.0, dropout: 0.0, checkpoint_images: 320}}
generate: {{per_class: {per_class}, steps: 4, batch: 50}}
audit: {{planted: {planted}, membership_draws: 1}}
evaluate: {{seeds: 2, classifier_images: 256}}
stress: {{images: 100}}
release: {{title: A small cohort, licence: CC0-1.0}}
"""


def quick(folder: Path) -> Path:
    """A run of seconds; too few images for a verdict."""
    path = folder / "quick.yaml"
    path.write_text(TEXT.format(name="quick", patients=300, sealed=0.5, images=3200, per_class=30, planted=20, anyway="true"))
    return path


def passing(folder: Path) -> Path:
    """Enough sealed patients and synthetic images for a verdict, and too little training to remember anybody."""
    path = folder / "passing.yaml"
    path.write_text(TEXT.format(name="passing", patients=PATIENTS, sealed=0.65, images=6400, per_class=220, planted=48, anyway="false"))
    return path
