"""Every schedule and sampler against mixtures whose distribution is known, at any number of steps.

    python -m tests.benchmarks.sampler_oracle [--peers]

The network is the exact denoiser, so that all that is seen is the sampler's own error: the Wasserstein-1 distance between what is made and
the true distribution, in thousandths of the unit of intensity (the images' range is 2). It counts a wrong share of a mode, a wrong
width and a wrong place alike, in one number that has a unit, and in one dimension it is exact. ``order`` is the measured order of
convergence of the deterministic samplers. ``--peers`` adds MONAI's and diffusers' schedulers as their users get them, without clipping,
for the schedule that they share. Needs three minutes of one core; the numbers depend on no hardware.
"""

import argparse
import functools
import importlib.metadata
from collections.abc import Callable, Iterable
from unittest import mock

import torch
from torch import Tensor

from pipeline.diffusion.samplers import SAMPLERS, Sampler, ddim
from pipeline.diffusion.schedules import SCHEDULES
from tests.unit.mixture import TOY, UNEVEN, Mixture, RankedNoise, order, quantiles, sampled

STEPS = (5, 10, 20, 50, 250, 1000)
STOCHASTIC = ("ddpm", "ddim, eta 0.5", "dpmpp_2m_sde")
COUNT = 2048


def ours() -> dict[str, Sampler]:
    return SAMPLERS | {"ddim, eta 0.5": functools.partial(ddim, eta=0.5)}


def rows(mixture: Mixture) -> Iterable[tuple[str, str, list[float], list[float], float | None]]:
    """Schedule, sampler, errors and in-mode rms at STEPS, and order of every pair."""
    for schedule in SCHEDULES:
        for name, sampler in ours().items():
            made = [sampled(mixture, schedule, sampler, steps, COUNT) for steps in STEPS]
            measured = None if name in STOCHASTIC else order(mixture, schedule, sampler)
            yield schedule, name, [mixture.wasserstein(x) for x in made], [in_mode(mixture, x) for x in made], measured


def in_mode(mixture: Mixture, x: Tensor) -> float:
    """Root mean square distance to the nearest mode."""
    return float((x - x.new_tensor(mixture.means).T).abs().amin(dim=1).square().mean().sqrt())


def peers(steps: int) -> dict[str, Callable[[RankedNoise], Tensor]]:
    """What each installed peer's scheduler makes in so many steps of the linear schedule, with the exact denoiser and without clipping."""
    found: dict[str, Callable[[RankedNoise], Tensor]] = {}
    linear = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    if installed("monai"):
        from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

        for name, kind in {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}.items():
            scheduler = kind(schedule="linear_beta", clip_sample=False, **linear)
            found[f"MONAI {name}"] = functools.partial(variance_preserving, scheduler, steps, "torch.randn")
    if installed("diffusers"):
        import diffusers

        for name, noise in {"DDPM": "scheduling_ddpm", "DDIM": "scheduling_ddim"}.items():
            scheduler = getattr(diffusers, f"{name}Scheduler")(beta_schedule="linear", clip_sample=False, **linear)
            where = f"diffusers.schedulers.{noise}.randn_tensor"
            found[f"diffusers {name}"] = functools.partial(variance_preserving, scheduler, steps, where)
        where = "diffusers.schedulers.scheduling_dpmsolver_multistep.randn_tensor"
        more = {"beta_schedule": "linear", **linear}
        multistep = {
            "DPM-Solver++(2M)": diffusers.DPMSolverMultistepScheduler(**more),
            "SDE-DPM-Solver++(2M)": diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **more),
            "UniPC": diffusers.UniPCMultistepScheduler(**more),
        }
        for name, scheduler in multistep.items():
            found[f"diffusers {name}"] = functools.partial(by_level, scheduler, steps, where, preserving=True)
        exploding = {"Euler": diffusers.EulerDiscreteScheduler(**more), "Heun": diffusers.HeunDiscreteScheduler(**more)}
        for name, scheduler in exploding.items():
            found[f"diffusers {name}"] = functools.partial(by_level, scheduler, steps, where, preserving=False)
    return found


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def variance_preserving(scheduler, steps: int, noise: str, ranked: RankedNoise) -> Tensor:
    """A scheduler that is stepped by integer times, on x_t itself."""
    scheduler.set_timesteps(steps)
    x = quantiles(COUNT)
    with mock.patch(noise, side_effect=lambda *_, **__: ranked.noise()):
        for t in scheduler.timesteps:
            kept = float(scheduler.alphas_cumprod[int(t)])
            denoised = ranked.denoise(x / kept**0.5, ((1 - kept) / kept) ** 0.5)
            stepped = scheduler.step((x - kept**0.5 * denoised) / (1 - kept) ** 0.5, int(t), x)
            x = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
    return x.double()


def by_level(scheduler, steps: int, noise: str, ranked: RankedNoise, *, preserving: bool) -> Tensor:
    """A scheduler that keeps its own list of levels, on x_t (``preserving``) or on x_t / alpha."""
    scheduler.set_timesteps(steps)
    x = quantiles(COUNT) * scheduler.init_noise_sigma
    with mock.patch(noise, side_effect=lambda *_, **__: ranked.noise()):
        for number, t in enumerate(scheduler.timesteps):
            sigma = float(scheduler.sigmas[number])
            alpha = (1 + sigma**2) ** -0.5 if preserving else 1.0
            scheduler.scale_model_input(x, t)
            denoised = ranked.denoise(x / alpha, sigma)
            x = scheduler.step((x / alpha - denoised) / sigma, t, x).prev_sample.double()
    return x


def line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also MONAI's and diffusers' schedulers, where installed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = ("schedule", "sampler", *(f"N = {steps}" for steps in STEPS))
    for title, mixture in {"two modes (±0.5, width 0.05)": TOY, "three uneven modes": UNEVEN}.items():
        print(f"\nWasserstein-1 · 1000, {title}\n")
        line(*head, "order")
        line(*["---"] * (len(head) + 1))
        spreads = []
        for schedule, name, errors, spread, measured in rows(mixture):
            line(schedule, name, *(f"{1000 * error:.2f}" for error in errors), "" if measured is None else f"{measured:.2f}")
            spreads.append((schedule, name, spread))
        if options.peers:
            columns = [{name: make(RankedNoise(mixture, COUNT)) for name, make in peers(steps).items()} for steps in STEPS]
            for name in columns[0]:
                line("ddpm_linear", f"*{name}*", *(f"{1000 * mixture.wasserstein(made[name]):.2f}" for made in columns), "")
                spreads.append(("ddpm_linear", f"*{name}*", [in_mode(mixture, made[name]) for made in columns]))
        if mixture is TOY:
            print("\nRoot mean square distance to the nearest mode (exact: 0.050)\n")
            line(*head)
            line(*["---"] * len(head))
            for schedule, name, spread in spreads:
                line(schedule, name, *(f"{value:.3f}" for value in spread))


if __name__ == "__main__":
    main()
