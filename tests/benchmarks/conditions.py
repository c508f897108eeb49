"""Whether a model draws what it is asked for: findings present and absent, sides, sizes and severities, by two judges with their errors.

    python -m tests.benchmarks.conditions --patients 20000 --set ingest.size=32 --set train.images=1600000 --out conditions
    python -m tests.benchmarks.conditions runs/text_conditioned --out conditions

The first trains the configuration ``text_conditioned`` on rendered phantoms, none of which has what :data:`UNSEEN` names: that is asked for
too, and told apart. The second takes a run's model, which must be of phantoms with several findings and told of ``severity`` and ``side``.

What a judge says is corrected for its errors on rendered phantoms that it never saw (Rogan & Gladen 1978), on those that also show what
else is asked for; of what no such correction is known for, what it says of true renderings stands beside, as the ceiling. Sides, severities
and sizes are those of the images that show the finding: of what is not there nothing can be right. Writes ``conditions.json`` and
``conditions.png``, the trade-off of guidance for each condition, and prints a line for each aim.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from evaluation.data import to_unit
from evaluation.findings import rogan_gladen
from evaluation.intervals import Interval, clopper_pearson, to_json
from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Asked, Config, GenerateConfig, load_config
from pipeline.denoiser import build_denoiser, load_denoiser
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Training
from pipeline.further import find_model
from pipeline.generate import Sampling
from pipeline.phantom.anatomy import FINDINGS
from pipeline.train import describe, mean_and_spread, recipe
from pipeline.wanted import planned
from tests.benchmarks.rendered import SIDED, SIZES, Fit, Network, Rendered

UNSEEN: tuple[dict[str, Any], ...] = (
    {"findings": ["cardiomegaly", "pneumothorax"]},
    {"findings": ["nodule"], "attributes": {"side": "left", "sex": "F"}},
)
"""What no image has on which a model is trained here."""
SEVERITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
BATCH = 400
AIMS = {"present": 0.9, "absent": 0.95, "side": 0.95, "severity": 0.9, "size": 0.15, "judge": 0.99}
Judge = Network | Fit
Images = NDArray[np.uint8]
Table = dict[str, Any]


class Drawn:
    """What a model draws for a plan, kept so that both judges see the same images."""

    def __init__(self, denoiser: Denoiser, facts: Mapping[str, Any], section: GenerateConfig, count: int, device: str) -> None:
        self.denoiser, self.facts, self.section, self.count, self.device = denoiser, dict(facts), section, count, device
        self.conditions = Conditions.of_model(facts)
        self.side = int(facts["shape"][-1])
        self.made: dict[str, Images] = {}

    def __call__(self, scale: float | None = None, **asked: Any) -> Images:
        """``count`` images of one entry of a plan, at a guidance scale of its own."""
        key = json.dumps(asked, sort_keys=True)
        if (name := f"{key} at {scale}") not in self.made:
            # Not compiled: each scale would be anew, for a second of work.
            section = self.section.model_copy(update={"compile": False, **({} if scale is None else {"guidance_scale": scale})})
            entry = Asked.model_validate({"count": self.count, "extrapolate": True, **asked})
            seeds = [runtime.derive_seed(0, "conditions", key, k) for k in range(self.count)]
            wanted = planned([entry], self.conditions, seeds, "conditions")
            sampling = Sampling(self.denoiser, self.facts, section, self.device)
            self.made[name] = np.concatenate([sampling.make(wanted.take(slice(at, at + BATCH))) for at in range(0, self.count, BATCH)])
        return self.made[name]

    def at(self, scale: float) -> Drawn:
        """The same model, guided by ``scale`` wherever no other is asked for."""
        section = self.section.model_copy(update={"guidance_scale": scale})
        return Drawn(self.denoiser, self.facts, section, self.count, self.device)

    def seen(self, asked: Mapping[str, Any]) -> bool:
        """Whether enough training images had this together."""
        marks = [1 if name in asked["findings"] else -1 for name in self.conditions.classes]
        return self.conditions.seen(marks, asked.get("attributes", {}))


def of_run(run: Path, count: int, device: str) -> Drawn:
    """The model of a run, sampled as the run samples it."""
    model = find_model(run)
    denoiser, facts = load_denoiser(model.folder, device)
    return Drawn(denoiser, facts, model.section, count, device)


def trained(config: Config, patients: int, size: int, count: int, device: str) -> tuple[Drawn, Table]:
    """A model of the configuration, trained on rendered phantoms without :data:`UNSEEN`; and what that took."""
    section = config.train
    everything = Rendered.draw(patients, config.seed, size)
    rendered = everything.take(~np.any([_has(everything, one) for one in UNSEEN], axis=0))
    cohort = rendered.cohort()
    people, names = cohort.rows["patient"].to_numpy(), section.attributes
    conditions = Conditions.learned(cohort, cohort.classes, people, several=True, names=names, text=section.text)
    mean, spread = mean_and_spread(cohort.images)
    facts = describe(section, cohort, spread, conditions)
    torch.manual_seed(runtime.derive_seed(config.seed, "weights"))
    denoiser = build_denoiser(facts, mean).to(device)
    data = torch.from_numpy(np.array(cohort.images)).to(device), conditions.of(cohort)
    training = Training(denoiser, *data, recipe(section), runtime.derive_seed(config.seed, "training"))
    training.run(until=1, every=1)  # compiles
    began = time.perf_counter()
    course: list[tuple[int, float]] = []
    training.run(every=max(1, training.recipe.steps // 20), report=lambda step, loss: course.append((step * section.batch, loss)))
    seconds = time.perf_counter() - began
    denoiser.load_state_dict(training.averaged())
    told = {"images": section.images, "of": len(cohort), "left_out": len(everything) - len(rendered), "seconds": seconds, "loss": course}
    return Drawn(denoiser.eval().requires_grad_(False), facts, config.generate, count, device), told


def _has(rendered: Rendered, asked: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which phantoms have this."""
    rows = np.all([rendered.marks[:, FINDINGS.index(name)] == 1 for name in asked["findings"]], axis=0)
    for name, value in asked.get("attributes", {}).items():
        rows &= rendered.sex == value if name == "sex" else rendered.marks[:, -1] == int(value == "left")
    return np.asarray(rows, np.bool_)


def rank(guessed: NDArray[np.float64], asked: NDArray[np.float64]) -> Interval:
    """Spearman's correlation, with Fisher's interval of it (Bonett & Wright 2000, doi:10.1007/BF02294183); no bounds of few or of one."""
    n = len(asked)
    if n < 10 or min(len(np.unique(asked)), len(np.unique(guessed))) < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    value = float(spearmanr(guessed, asked).statistic)
    reach = 1.96 * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(min(max(value, -0.999999), 0.999999))
    return Interval(value, math.tanh(middle - reach), math.tanh(middle + reach), n)


def graded(judge: Judge, name: str, images: Sequence[Images]) -> Table:
    """How severe a finding is where each set was asked to be of one of :data:`SEVERITIES`: of all images, and of those that show it."""
    asked = np.repeat(SEVERITIES, [len(one) for one in images])
    every = np.concatenate(list(images))
    shows = judge.marks(every)[:, FINDINGS.index(name)]
    guessed = np.clip(judge.severity(every, name), 0, 1)
    least, more = SIZES[name]
    off = (np.abs(guessed - asked) * more / (least + more * asked))[shows]
    value, reach = (off.mean(), 1.96 * off.std() / math.sqrt(len(off))) if len(off) else (math.nan, math.nan)
    return {
        "severity_rank_of_all": rank(guessed, asked),
        "severity_rank": rank(guessed[shows], asked[shows]),
        "size_error": Interval(float(value), float(value - reach), float(value + reach), len(off)),
    }


def severe(count: int, size: int) -> dict[str, list[Images]]:
    """True renderings of each of :data:`SEVERITIES`, ``count`` each, by finding."""
    found = {name: Rendered.severe(name, SEVERITIES, count, 104, size).images for name in SIDED}
    return {name: list(np.split(images, len(SEVERITIES))) for name, images in found.items()}


def errors(judge: Judge, test: Rendered, true: Mapping[str, Sequence[Images]]) -> Table:
    """A judge's sensitivity and specificity on rendered phantoms that it never saw, of all and of those that also show each other finding,
    and of all made as much sharper as a generated image may be; and what it says of severities that are as asked."""
    called, sharper = judge.marks(test.images), judge.marks(sharpened(test.images))
    every = np.ones(len(test), bool)
    found: Table = {}
    for k, name in enumerate((*FINDINGS, "side")):
        found[name] = _errors(called[:, k], test.marks[:, k], every)
        found[name]["sharper"] = _errors(sharper[:, k], test.marks[:, k], every)
        beside = {other: test.marks[:, place] == 1 for place, other in enumerate(FINDINGS) if other != name}
        found[name]["given"] = {other: _errors(called[:, k], test.marks[:, k], among) for other, among in beside.items()}
    for name, images in true.items():
        found[name] |= graded(judge, name, images)
    return found


def sharpened(images: Images) -> Images:
    """Images with their finest contrast raised by a quarter (unsharp masking over a pixel), somewhat more than guidance raises it.

    Where a judge's errors do not hold for these, they correct nothing where it judges generated images.
    """
    x = images.astype(np.float64)
    return np.rint(np.clip(x + 0.25 * (x - gaussian_filter(x, (0, 0, 1, 1))), 0, 255)).astype(np.uint8)


def _errors(called: NDArray[np.bool_], truth: NDArray[np.int8], among: NDArray[np.bool_]) -> dict[str, Any]:
    yes, no = called[among & (truth == 1)], called[among & (truth == 0)]
    return {"sensitivity": clopper_pearson(int(yes.sum()), len(yes)), "specificity": clopper_pearson(int((~no).sum()), len(no))}


def share(judge: Judge, its: Table, images: Images, name: str, present: bool, beside: str | None = None) -> Table:
    """How many images have (or have not) a finding as the judge calls them, and corrected for its errors where they show ``beside`` too."""
    its = its[name] if beside is None else its[name]["given"][beside]
    return shares(judge.marks(images)[:, (*FINDINGS, "side").index(name)], its, present)


def shares(called: NDArray[np.bool_], its: Mapping[str, Any], yes: bool) -> Table:
    """The share of calls that are right where they should be ``yes``, and what is right by a judge of such errors."""
    if not len(called):
        return {}
    counted = clopper_pearson(int(called.sum()), len(called))
    errs = its["sensitivity"], its["specificity"]
    # A judge that is no better than chance has nothing that could be corrected.
    true = rogan_gladen(counted, *errs) if sum(one.value for one in errs) > 1 else Interval(math.nan, math.nan, math.nan, counted.n)
    both = {"called": counted, "corrected": true}
    return both if yes else {key: Interval(1 - one.value, 1 - one.high, 1 - one.low, one.n) for key, one in both.items()}


def sided(judge: Judge, its: Table, images: Images, name: str, side: str) -> Table:
    """Whether a finding is there, and of the images that show it, whether it is on this side."""
    marks = judge.marks(images)
    shows = marks[:, FINDINGS.index(name)]
    return {"present": shares(shows, its[name], True), "side": shares(marks[shows, -1], its["side"], side == "left")}


def measure(judge: Judge, its: Table, drawn: Drawn) -> Table:
    """All that is asked for, as one judge sees it."""
    found: Table = {"present": {}, "absent": {}, "both": {}, "one_without": {}, "side": {}, "size": {}, "unseen": {}}
    for name in FINDINGS:
        found["present"][name] = share(judge, its, drawn(findings=[name]), name, True)
        found["absent"][name] = share(judge, its, drawn(without=[name]), name, False)
        for other in FINDINGS:
            if other == name:
                continue
            images, key = drawn(findings=[name], without=[other]), f"{name} without {other}"
            found["one_without"][key] = {
                "present": share(judge, its, images, name, True),
                "absent": share(judge, its, images, other, False, beside=name),
            }
    pairs = [[one, other] for place, one in enumerate(FINDINGS) for other in FINDINGS[place + 1 :]]
    for pair in pairs:
        images = drawn(findings=pair)
        told = {name: share(judge, its, images, name, True, beside=other) for name, other in itertools.permutations(pair)}
        found["both" if drawn.seen({"findings": pair}) else "unseen"][" + ".join(pair)] = told
    for name in SIDED:
        for side in ("left", "right"):
            found["side"][f"{name} {side}"] = {
                way: sided(judge, its, images, name, side) for way, images in _ways(drawn, name, side, None).items()
            }
        images = [drawn(findings=[name], attributes={"severity": one}) for one in SEVERITIES]
        found["size"][name] = graded(judge, name, images)
    for asked in (one for one in UNSEEN if "attributes" in one and not drawn.seen(one)):
        [name], told = asked["findings"], asked["attributes"]
        found["unseen"][f"{name} {' '.join(told.values())}"] = sided(judge, its, drawn(**asked), name, told["side"])
    return found


def _ways(drawn: Drawn, name: str, side: str, scale: float | None) -> dict[str, Images]:
    """A finding of a side asked for by the attribute, and by a prompt where the model reads any."""
    ways = {"attribute": drawn(scale, findings=[name], attributes={"side": side})}
    if drawn.conditions.vocabulary:
        ways["prompt"] = drawn(scale, text=f"{side} {'pleural effusion' if name == 'effusion' else name}")
    return ways


def trade_off(judge: Judge, its: Table, drawn: Drawn) -> dict[str, list[dict[str, float]]]:
    """For each condition and scale of guidance: how many images have what was asked, and how much they differ from each other."""
    found: dict[str, list[dict[str, float]]] = {}

    def point(name: str, scale: float, images: Images, has: float) -> None:
        found.setdefault(name, []).append({"scale": scale, "has": has, "spread": float(to_unit(images).std(axis=0).mean())})

    for scale in SCALES:
        for name in FINDINGS:
            images = drawn(scale, findings=[name])
            point(name, scale, images, share(judge, its, images, name, True)["corrected"].value)
        for way, images in _ways(drawn, "effusion", "left", scale).items():
            marks = judge.marks(images)
            point(f"left effusion by {way}", scale, images, float((marks[:, FINDINGS.index("effusion")] & marks[:, -1]).mean()))
    return found


def picture(points: dict[str, list[dict[str, float]]], path: Path) -> None:
    """The trade-off along guidance, a line a condition: what it buys, and what variety it costs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    has, spread = figure.subplots(1, 2)
    for name, line in points.items():
        scales = [one["scale"] for one in line]
        has.plot(scales, [one["has"] for one in line], "o-", label=name, alpha=0.8)
        spread.plot(scales, [one["spread"] / line[0]["spread"] for one in line], "o-", alpha=0.8)
    has.set_ylabel("share that has what was asked for")
    has.set_ylim(top=1.01)
    spread.set_ylabel("spread of the images, relative to guidance 1")
    for axes in (has, spread):
        axes.set_xlabel("guidance scale")
        axes.grid(alpha=0.3)
    has.legend(fontsize=7)
    figure.savefig(path)


def lines(found: Table, its: Table) -> list[str]:
    """A line for each aim and question of what one judge saw: the aim, the value with its interval, the ceiling where there is one."""
    said: list[str] = []

    def line(what: str, aim: str, one: Interval | None, ceiling: Interval | None = None) -> None:
        if one is None or math.isnan(one.value):
            return
        good: Callable[[float], bool] = (lambda x: x <= AIMS[aim]) if aim == "size" else (lambda x: x >= AIMS[aim])
        ends = [good(one.low), good(one.high)]
        verdict = "reached" if all(ends) else "open" if any(ends) else "not reached"
        beside = "" if ceiling is None else f" true renderings {ceiling.value:.3f} [{ceiling.low:.3f}, {ceiling.high:.3f}] |"
        told = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}] n={one.n}"
        said.append(f"| {what} | {'<=' if aim == 'size' else '>='} {AIMS[aim]:g} | {told} | {verdict} |{beside}")

    for name in (*FINDINGS, "side"):
        for kind in ("sensitivity", "specificity"):
            line(f"judge, {name}: {kind}", "judge", its[name][kind])
            line(f"judge, {name}: {kind} on sharper renderings", "judge", its[name]["sharper"][kind])
    for aim in ("present", "absent"):
        for name, told in found[aim].items():
            line(f"{aim}: {name}", aim, told.get("corrected"))
    for kind in ("both", "unseen"):
        for key, told in found[kind].items():
            for name, one in told.items():
                line(
                    f"{'never seen together: ' if kind == 'unseen' else ''}{key}: {name}",
                    "side" if name == "side" else "present",
                    one.get("corrected"),
                )
    for key, told in found["one_without"].items():
        for aim in ("present", "absent"):
            line(f"{key}: {aim}", aim, told[aim].get("corrected"))
    for key, ways in found["side"].items():
        for way, told in ways.items():
            line(f"{key} by {way}: present", "present", told["present"].get("corrected"))
            line(f"{key} by {way}: side", "side", told["side"].get("corrected"))
    for name, told in found["size"].items():
        line(f"severity of {name}: rank correlation", "severity", told["severity_rank"], its[name]["severity_rank"])
        line(f"severity of {name}: rank correlation, of all images", "severity", told["severity_rank_of_all"])
        line(f"size of {name}: relative error", "size", told["size_error"], its[name]["size_error"])
    return said


def main() -> None:
    """Train, or take a run's model, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run whose model is measured; without it one is trained here")
    parser.add_argument("--out", type=Path, default=Path("conditions"))
    parser.add_argument("--patients", type=int, default=20_000, help="phantom patients that a model is trained on here")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--count", type=int, default=400, help="images of each thing that is asked for")
    parser.add_argument("--judged", type=int, default=6000, help="phantom patients that the judges learn from")
    parser.add_argument(
        "--guidance", type=float, nargs="*", default=[], help="scales at which the network judge is asked everything once more"
    )
    parser.add_argument("--ceiling", type=int, default=1_000_000, help="images in training the judge, at the most")
    options = parser.parse_args()
    runtime.limit_threads()
    device = runtime.device()
    options.out.mkdir(parents=True, exist_ok=True)
    result: Table = {"device": device, "count": options.count, "judged": options.judged, "set": options.overrides}
    if options.run is not None:
        drawn = of_run(options.run, options.count, device)
    else:
        config = load_config("text_conditioned", options.overrides)
        drawn, result["training"] = trained(config, options.patients, config.ingest.size, options.count, device)
        print(json.dumps(result["training"]), flush=True)
    learn = Rendered.draw(options.judged, 101, drawn.side)
    choose, test = (Rendered.draw(max(60, options.judged // 6), seed, drawn.side) for seed in (102, 103))
    true = severe(options.count, drawn.side)
    network = Network(learn, choose, options.ceiling, device)
    result["plateau"] = network.plateau
    for judge in (network, Fit(learn)):
        its = errors(judge, test, true)
        result[judge.name] = {"errors": its, **(found := measure(judge, its, drawn))}
        print(f"\n{judge.name}\n" + "\n".join(lines(found, its)), flush=True)
        if judge is network:
            result["trade_off"] = trade_off(judge, its, drawn)
            picture(result["trade_off"], options.out / "conditions.png")
            for scale in options.guidance:
                name = f"{judge.name} at guidance {scale:g}"
                result[name] = measure(judge, its, drawn.at(scale))
                print(f"\n{name}\n" + "\n".join(lines(result[name], its)), flush=True)
        (options.out / "conditions.json").write_text(json.dumps(to_json(result), indent=1))


if __name__ == "__main__":
    main()
