"""What the gate allows, argued where it stands: one versioned set of constants, the same for every configuration, which
:mod:`privacy.bounds` are held against.

Two errors are kept apart. An *honest* set (one whose generator gives away nothing of a patient) fails by chance in at most
:data:`FALSE_ALARM` of all cases, however many checks can fail it: each has its share in :data:`FALSE_ALARMS`, and none grows with the
number of attempts. A *leaking* set passes by chance with a probability that shrinks from attempt to attempt (:func:`confidence`), so that
trying until it passes gains nothing.
"""

from __future__ import annotations

from types import MappingProxyType

GATE_VERSION = 10
"""Raised with any constant, bound, rule or sentence of the gate, before it meets a cohort; ``gate.json`` states it."""

MAX_COPY_RATE = 0.005
"""Upper bound of the share of copies: fewer than one image in two hundred. A laxer bound would let a release of a thousand images hold ten
patients, a stricter one asks for sets larger than people publish. 0 flagged of some 890 distinct images reach it at the first attempt,
where every planted copy is found, and of some 1 100 at the least recall that may pass."""
MAX_EXPOSED = 3
"""Upper bound of the patients who are copied in this release and the cohort's earlier ones together without being found: a rate grows with
the release, a number of people does not. Nothing found at a recall of .80 leaves two at the first attempt and three at the second; no
search leaves none."""
MIN_RECALL = 0.80
"""Lower bound of the recall on each required kind of planted copy, the worst of them: a search that misses more than one in five says
little when it finds nothing."""
MIN_HOLDOUT = 300
"""Sealed patients (images, where patients are unknown) that calibrate the search: with fewer, a false-alarm rate of 1 % cannot be
certified (0 of 300 bounds it at 1 % with 95 % confidence)."""
MAX_REPEATS = 0.01
"""Largest share of images that repeat another one (:mod:`privacy.repeats`), or are of one value. A generator that draws from noise never
repeats itself, real cohorts do in .4 % (18 of 4 708 in PneumoniaMNIST): beyond twice that, it has collapsed, or gives back what it has by
heart. Neither is shown to be a patient by that alone, which the copy search judges: more repeats leave the set undecided."""
MAX_MEMBERSHIP_AUC = 0.55
"""Upper bound of a membership attack's AUC: 1 000 images on each side resolve .02 around guessing."""
MAX_MEMBERSHIP_TPR = 0.03
"""Upper bound of the members found at 1 % false alarms: what a mechanism of ε = 1 allows, e · 1 %. A mean can hide the few who are
exposed."""
MIN_TRAININGS = 8
"""Shadow trainings without which the attack is too weak to clear anybody. Measured on PneumoniaMNIST: an AUC of .834 with 4, .843 with 8,
.86 with 15; with none, .53."""
MAX_EPSILON = MappingProxyType({"images": 1.0, "weights": 3.0})
"""Lower bound of ε that one run of a generator may show. A released image should change nobody's odds of being told a member by more than
e; weights are for fewer hands, and at 3 a member is told with 95 % by whoever had no idea. No upper bound of ε can be measured: a small one
certifies nothing."""
MAX_SPLIT_BIAS = 0.60
"""Upper bound of the AUC of telling train from holdout images without any generator: what 300 patients a side can show of two samples of
one source. Sides that differ more are no control for each other."""
CHANCE = 0.5
"""AUC of guessing."""

FALSE_ALARM = 0.01
"""Probability that an honest set fails."""
FALSE_ALARMS = MappingProxyType(
    {
        "copies": 0.003,
        "leading_run": 0.004,
        "loss_auc": 0.0005,
        "images_auc": 0.0005,
        "images_tpr": 0.00025,
        "images_epsilon": 0.0005,
        "weights_auc": 0.0005,
        "weights_tpr": 0.00025,
        "weights_epsilon": 0.0005,
    }
)
"""Its shares, of everything that can fail a set (Bonferroni). ``copies`` is familywise over the images, and over
its two tests where a cohort has twins; a stricter level costs that search little, since its threshold falls with the level's small root.
``leading_run`` costs most: at .004 ten copied patients are seen with certainty where 43 % are sealed, at .002 where 47 % are
(:func:`privacy.bounds.leading_run_power`). What attacks membership needs no more: a leak that matters is many standard errors away from
what is allowed."""


def copy_bound(max_copy_rate: float | None) -> float:
    """The bound on the share of copies, which a configuration may only tighten. Raises ValueError for a laxer one."""
    if max_copy_rate is None:
        return MAX_COPY_RATE
    if not 0 < max_copy_rate <= MAX_COPY_RATE:
        raise ValueError(f"{max_copy_rate} is no bound between 0 and the gate's {MAX_COPY_RATE}: it may only be tightened")
    return max_copy_rate


def required_kinds(pixels: int) -> tuple[str, ...]:
    """The planted copies that a verdict rests on, by the images' side in pixels; :mod:`privacy.power` names them.

    What published memorisation looks like under mild augmentation: the image as it is (``identity``), mirrored (``flip``) or moved
    (``shift``), which augmentation does; in other brightness and contrast (``intensity``), which a network's last layer shifts; and without
    its finest detail (``blur``), which few sampling steps leave out. From 64 px on also under weak noise and at JPEG's usual quality
    (``noise_weak``, ``jpeg_50``), as a sampler that stops early or a picture archive leaves them: at 28 px as much changes what tells one
    patient from another, so that no search can promise it.
    """
    return ("identity", "flip", "shift", "intensity", "blur", *(("noise_weak", "jpeg_50") if pixels >= 64 else ()))


REQUIRED_TIMES = 3
"""How many times as many copies are planted of a required kind as of another. Of a kind of which .92 are found, 100 planted ones fall short
of :data:`MIN_RECALL` by their lower bound in 28 of 100 audits, 300 in 1 of 1 000."""


def confidence(attempt: int) -> float:
    """Confidence of every bound that attempt k = 1, 2, … on a cohort needs to pass: 1 − .05 / (k (k + 1)), so that all errors sum to
    .05."""
    return 1 - 0.05 / (attempt * (attempt + 1))
