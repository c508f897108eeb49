"""PneumoniaMNIST after equal training time: our recipe beside two peers' in one run, judged by the evaluate stage's own protocol.

Every recipe trains for the same seconds on the same images (the pipeline's ``train`` split; compilation is not counted), and generates
as many images, at the training set's class mix. Fréchet distance and two-sample test are against the sealed ``audit`` images at equal n,
beside the floor of unseen real ones; utility trains ResNet-18s on synthetic images and scores them on the official test set, paired with
real ones. The peers: MONAI's DiffusionModelUNet (128, 256, 256) with the textbook recipe (epsilon, linear schedule, DDIM-50), and
with EDM's preconditioning and 18 Heun steps.

    python -m tests.benchmarks.pneumonia_quality --data FOLDER --seconds 60 --peers --out results
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.encoder import Labelled, train_classifier, train_together
from evaluation.fidelity import fidelity, standardised_features
from evaluation.intervals import to_json
from evaluation.utility import label_fidelity, utility
from pipeline import runtime
from pipeline.config import Config, load_config
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.samplers import dpmpp_2m, heun, starting_noise
from pipeline.diffusion.schedules import RANGE, karras_sigmas
from pipeline.diffusion.training import Training
from pipeline.evaluate import labelled
from pipeline.images import ImageSet, from_unit, to_unit
from pipeline.progress import Reporter
from pipeline.stages import run_stages
from pipeline.train import build_denoiser, recipe

Generate = Callable[[np.ndarray, list[int]], np.ndarray]


@dataclasses.dataclass
class Trained:
    """A trained recipe: how it generates, and what training it took."""

    generate: Generate
    facts: dict[str, Any]


def ours(config: Config, train: ImageSet, seconds: float, seed: int, device: str, network: nn.Module | None = None) -> Trained:
    """Train the configuration's recipe for ``seconds``; with ``network``, a peer's network under EDM's preconditioning and AdamW."""
    section = config.train
    mean = to_unit(train.images).mean(axis=0, dtype=np.float64).astype(np.float32)
    model = {
        "channels": train.images.shape[1],
        "size": train.images.shape[2],
        "classes": list(train.classes),
        "sigma_data": float((to_unit(train.images) - mean).std(dtype=np.float64)),
        "network": {key: getattr(section, key) for key in ("widths", "blocks", "patch", "attention", "dropout")},
    }
    torch.manual_seed(seed)
    if network is None:
        denoiser = build_denoiser(model, mean).to(device)
    else:
        spread = float(to_unit(train.images).std(dtype=np.float64))
        denoiser = Denoiser(network, torch.zeros(mean.shape), spread).to(device, memory_format=torch.channels_last)
    how = recipe(section)
    if network is not None:
        how = dataclasses.replace(how, augment=0.0, learning_rate=2e-4, balance=0.0)
    data = torch.from_numpy(np.array(train.images)).to(device), torch.from_numpy(train.labels).to(device)
    training = Training(denoiser, *data, how, seed)
    if network is not None:
        training.optimisers = [torch.optim.AdamW(training.parameters, lr=training.rate, betas=(0.9, 0.999), weight_decay=0.01, fused=True)]
    begin = {name: value.clone() for name, value in denoiser.state_dict().items()}
    rate = calibrate(lambda steps: training.run(until=training.step + steps, every=10**9), how.batch, device)
    denoiser.load_state_dict(begin)
    fresh = Training(denoiser, *data, dataclasses.replace(how, images=max(how.batch, int(rate * seconds))), seed)
    fresh.loss = training.loss
    if network is not None:
        fresh.optimisers = [torch.optim.AdamW(fresh.parameters, lr=fresh.rate, betas=(0.9, 0.999), weight_decay=0.01, fused=True)]
    began = time.time()
    fresh.run(every=10**9)
    wait(device)
    took = time.time() - began
    denoiser.load_state_dict(fresh.averaged(), strict=False)
    denoiser.eval().requires_grad_(False)
    null = len(train.classes)

    @torch.inference_mode()
    def generate(labels: np.ndarray, seeds: list[int]) -> np.ndarray:
        condition = torch.from_numpy(labels).to(device)
        noise = starting_noise(seeds, (model["channels"], model["size"], model["size"]), device)
        section = config.generate
        with runtime.autocast(device):
            if network is not None:
                levels = karras_sigmas(18, 0.002, 80.0).tolist()
                images = heun(lambda x, sigma: denoiser(x, sigma, condition), levels[0] * noise, levels)
            else:
                interval = tuple(bound * denoiser.sigma_data for bound in section.guidance_interval)
                denoise = guided(denoiser, condition, null=null, scale=section.guidance_scale, interval=interval)
                levels = karras_sigmas(section.steps, *(bound * denoiser.sigma_data for bound in RANGE)).tolist()
                images = dpmpp_2m(denoise, denoiser.mean + levels[0] * noise, levels)
        return from_unit(images.float().cpu().numpy())

    facts = {
        "images_seen": fresh.step * how.batch,
        "train_seconds": round(took, 1),
        "parameters": sum(p.numel() for p in denoiser.parameters()),
    }
    return Trained(generate, facts)


CHANNELS = (128, 256, 256)
HEAD = 64


class MonaiNetwork(nn.Module):
    """MONAI's U-Net as F(x, c_noise, labels, augmentation)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.classes = classes
        self.net = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=channels,
            channels=CHANNELS,
            attention_levels=(False, True, True),
            num_res_blocks=1,
            num_head_channels=HEAD,
            num_class_embeds=classes + 1,
        )

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """The noise level is given on the scale of MONAI's time steps."""
        result: Tensor = self.net(x, 250 * c_noise + 500, class_labels=labels)
        return result


def textbook(config: Config, train: ImageSet, seconds: float, seed: int, device: str) -> Trained:
    """MONAI's network and schedulers as its tutorials use them: epsilon loss, linear betas, AdamW 1e-4, EMA up to 0.999, DDIM-50."""
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

    torch.manual_seed(seed)
    network = MonaiNetwork(train.images.shape[1], len(train.classes)).to(device, memory_format=torch.channels_last)
    forward = torch.compile(network.net) if config.train.compile else network.net
    noiser = DDPMScheduler(num_train_timesteps=1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02)
    noiser.alphas_cumprod = noiser.alphas_cumprod.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    average = [p.detach().clone() for p in network.parameters()]
    images = torch.from_numpy(np.array(train.images)).to(device)
    labels = torch.from_numpy(train.labels).to(device)
    batch = config.train.batch
    generator = torch.Generator(device=device).manual_seed(seed)

    taken = [0]

    def steps(count: int) -> None:
        for _ in range(count):
            chosen = torch.randint(len(images), (batch,), generator=generator, device=device)
            clean = images[chosen].float() / 127.5 - 1
            condition = torch.where(torch.rand(batch, generator=generator, device=device) < 0.1, len(train.classes), labels[chosen])
            t = torch.randint(1000, (batch,), generator=generator, device=device)
            noise = torch.randn(clean.shape, generator=generator, device=device)
            noisy = noiser.add_noise(original_samples=clean, noise=noise, timesteps=t)
            with runtime.autocast(device):
                loss = (forward(noisy, t, class_labels=condition).float() - noise).square().mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            taken[0] += 1
            keep = min(0.999, (1 + taken[0]) / (10 + taken[0]))  # a slow average would still hold the untrained weights
            torch._foreach_lerp_(average, list(network.parameters()), 1 - keep)

    begin = {name: value.clone() for name, value in network.state_dict().items()}
    rate = calibrate(steps, batch, device)
    network.load_state_dict(begin)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    torch._foreach_copy_(average, [p.detach() for p in network.parameters()])
    taken[0] = 0
    count = max(1, int(rate * seconds / batch))
    began = time.time()
    steps(count)
    wait(device)
    took = time.time() - began
    with torch.no_grad():
        torch._foreach_copy_(list(network.parameters()), average)
    network.eval().requires_grad_(False)

    @torch.inference_mode()
    def generate(labels_: np.ndarray, seeds: list[int]) -> np.ndarray:
        sampler = DDIMScheduler(num_train_timesteps=1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)
        sampler.set_timesteps(50)
        condition = torch.from_numpy(labels_).to(device)
        x = starting_noise(seeds, images.shape[1:], device)
        for t in sampler.timesteps:
            with runtime.autocast(device):
                predicted = forward(x, torch.full((len(x),), int(t), device=device), class_labels=condition).float()
            x, _ = sampler.step(predicted, int(t), x)
        return from_unit(x.float().cpu().numpy())

    facts = {"images_seen": count * batch, "train_seconds": round(took, 1), "parameters": sum(p.numel() for p in network.parameters())}
    return Trained(generate, facts)


def calibrate(run: Callable[[int], None], batch: int, device: str) -> float:
    """Images a second once compiled and warm."""
    run(5)
    wait(device)
    began = time.time()
    run(20)
    wait(device)
    return 20 * batch / (time.time() - began)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class Judge:
    """One encoder and one set of real-trained classifiers for every candidate."""

    def __init__(self, splits: dict[str, Labelled], names: tuple[str, ...], options: argparse.Namespace, device: str) -> None:
        self.splits, self.names, self.options, self.device = splits, names, options, device
        val = splits["val"]
        encoder = train_classifier(val.images, val.labels, kind="small", images_seen=8_000, seed=0, device=device, classes=len(names))
        self.features = standardised_features(encoder.features, val.images)
        self.real = self._classifiers(splits["train"])

    def _classifiers(self, data: Labelled) -> list[Any]:
        def job(seed: int) -> Any:
            return train_classifier(
                data.images,
                data.labels,
                kind=self.options.classifier,
                images_seen=self.options.classifier_images,
                seed=seed,
                device=self.device,
                val=self.splits["val"],
                classes=len(self.names),
            )

        return train_together([partial(job, seed) for seed in range(self.options.utility_seeds)], self.device)

    def __call__(self, made: Labelled) -> dict[str, Any]:
        """Fidelity, label fidelity and utility of one candidate."""
        rng = np.random.default_rng(self.options.seed)
        result = fidelity(
            self.splits["audit"],
            made,
            self.features,
            self.names,
            kind=self.options.classifier,
            images_seen=self.options.classifier_images,
            rng=rng,
            device=self.device,
        )
        arms = {"real": self.real, "synthetic": self._classifiers(made)}
        scored = {arm: np.stack([one.predict(self.splits["test"].images) for one in ones]) for arm, ones in arms.items()}
        result["label_fidelity"] = label_fidelity(np.stack([one.predict(made.images) for one in self.real]), made.labels, self.names, rng)
        return result | {"utility": utility(scored, self.splits["test"], self.names, rng)}


def main() -> None:
    """Train every recipe, judge them, print one table, add the figures to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pneumoniamnist.npz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generate", type=int, default=10**9, help="images generated, at most as many as were trained on")
    parser.add_argument("--utility-seeds", type=int, default=5)
    parser.add_argument("--classifier", default="resnet18")
    parser.add_argument("--classifier-images", type=int, default=20_000)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument(
        "--variant", action="append", default=[], help="NAME:key=value,key=value: our recipe with other settings, trained too"
    )
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    runtime.limit_threads()
    device = runtime.device()
    config = load_config("pneumoniamnist", [f"ingest.path={options.data}", f"seed={options.seed}", *options.overrides])
    with tempfile.TemporaryDirectory() as folder:
        run_stages(config, Path(folder), Reporter(Path(folder) / "log.jsonl"), until="ingest")
        everyone = ImageSet.load(Path(folder) / "ingest")
        sets = {name: everyone.split(name) for name in ("train", "audit", "val", "test")}
    train = sets["train"]
    recipes: dict[str, Callable[[], Trained]] = {"ours": lambda: ours(config, train, options.seconds, options.seed, device)}
    for variant in options.variant:
        name, _, settings = variant.partition(":")
        other = load_config("pneumoniamnist", [f"ingest.path={options.data}", *options.overrides, *settings.split(";")])
        recipes[name] = lambda other=other: ours(other, train, options.seconds, options.seed, device)
    if options.peers:
        recipes["MONAI, EDM, Heun-18"] = lambda: ours(
            config, train, options.seconds, options.seed, device, MonaiNetwork(train.images.shape[1], len(train.classes))
        )
        recipes["MONAI, textbook, DDIM-50"] = lambda: textbook(config, train, options.seconds, options.seed, device)
    labels = np.sort(train.labels[:: max(1, len(train.labels) // options.generate)])
    judge = Judge({name: labelled(part) for name, part in sets.items()}, train.classes, options, device)
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "seconds": options.seconds,
        "seed": options.seed,
        "utility_seeds": options.utility_seeds,
        "n": {name: len(part) for name, part in sets.items()},
        "facts": {},
        "results": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / f"pneumonia_quality_{time.strftime('%H%M%S')}.json"
    seeds = [runtime.derive_seed(options.seed, "image", number) for number in range(len(labels))]
    chunks = [slice(start, start + 1024) for start in range(0, len(labels), 1024)]
    for number, (name, make) in enumerate(recipes.items()):
        trained = make()
        trained.generate(labels[:64], seeds[:64])
        wait(device)
        began = time.time()
        made = np.concatenate([trained.generate(labels[chunk], seeds[chunk]) for chunk in chunks])
        record["facts"][name] = trained.facts | {"generated": len(made), "generate_seconds": round(time.time() - began, 2)}
        np.save(options.out / f"samples_{number}.npy", made[:: max(1, len(made) // 64)])
        torch._dynamo.reset()
        record["results"][name] = to_json(judge(Labelled(to_unit(made), labels, np.arange(len(labels)).astype(str))))
        place.write_text(json.dumps(record, indent=1))
        table(record, name)


def table(record: dict[str, Any], name: str) -> None:
    """One line for a recipe; before the first, what all share."""

    def shown(interval: dict[str, Any], digits: int = 3) -> str:
        if interval["value"] is None or not math.isfinite(interval["value"]):
            return "undefined"
        return f"{interval['value']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"

    result, facts = record["results"][name], record["facts"][name]
    if len(record["results"]) == 1:
        print(
            f"{record['hardware']}, {record['date']}, {record['seconds']:.0f} s of training, n = {result['n']} a side, images {record['n']}"
        )
        floor = result["frechet"]["floor"], result["two_sample"]["floor"]
        print(f"floor (real against real): FD {shown(floor[0])}, two-sample AUC {shown(floor[1])}")
    use = result["utility"]
    print(
        f"{name:<26} FD {shown(result['frechet']['synthetic'])} ratio {shown(result['frechet']['ratio'], 2)} "
        f"two-sample {shown(result['two_sample']['synthetic'])} label fidelity {shown(result['label_fidelity']['macro'])} "
        f"TSTR AUC {shown(use['arms']['synthetic']['auc'])} TRTR {shown(use['arms']['real']['auc'])} "
        f"difference {shown(use['paired_auc']['synthetic-real'])} recall {shown(result['prdc']['recall']['synthetic'])} {facts}",
        flush=True,
    )


if __name__ == "__main__":
    main()
