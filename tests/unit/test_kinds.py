"""Every kind of planted copies has words of its own."""

from pipeline.release.plots import Row
from pipeline.release.words import title
from privacy import kinds, limits
from privacy.copy_report import KINDS
from privacy.power import COLOURED


def test_every_kind_that_is_planted_has_a_name_that_fits_beside_a_plot():
    keys = [
        *(kind.__name__ for kind in KINDS),
        *limits.required_kinds(64),
        *(kind.__name__ for kind in COLOURED),
        "regenerated",
        "same_patient",
    ]
    assert set(keys) == set(kinds.NAMES)
    assert len(set(kinds.NAMES.values())) == len(kinds.NAMES)
    assert [Row(title(name), 1, 1, 1).short for name in kinds.NAMES.values()] == list(map(title, kinds.NAMES.values()))


def test_a_strength_stays_with_its_kind():
    assert kinds.name("regenerated 0.25") == "made anew from noise 0.25"
    assert kinds.name("jpeg_15") == "JPEG of quality 15"
    assert kinds.name("of_tomorrow") == "of tomorrow"
