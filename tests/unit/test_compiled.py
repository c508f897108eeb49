"""What is compiled computes what the same code does uncompiled, and is kept where nobody else writes."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.compilation import FOLDER, compiled, keep_compiled
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.unet import UNet
from pipeline.runtime import autocast


def gradients(loss, denoiser: Denoiser, inputs: tuple[Tensor, ...], device: str) -> list[Tensor]:
    denoiser.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    with autocast(device):
        total = loss(*inputs).mean()
    total.backward()
    return [p.grad.float().flatten().clone() for p in denoiser.parameters() if p.grad is not None]


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("device", "batch", "widths"),
    [
        pytest.param("cpu", 8, (16, 32), marks=pytest.mark.slow),
        pytest.param("cuda", 256, (128, 256), marks=GPU),
        pytest.param("cuda", 512, (128, 256), marks=GPU),
    ],
)
def test_a_compiled_gradient_with_dropout_is_the_uncompiled_one(device, batch, widths):
    from torch._inductor import config

    torch._dynamo.reset()
    torch.manual_seed(0)
    network = UNet(channels=1, classes=2, size=28, widths=widths, blocks=2, attention=(7,), patch=2, dropout=0.1)
    denoiser = Denoiser(network, torch.zeros(1, 28, 28), 0.5).to(device).train()
    for weight in denoiser.parameters():  # layers that start at zero would hide those behind them
        if weight.ndim > 1 and not weight.detach().any():
            torch.nn.init.normal_(weight, std=0.02)
    images, noise = torch.rand(batch, 1, 28, 28, device=device) * 2 - 1, torch.randn(batch, 1, 28, 28, device=device)
    sigma, labels = torch.rand(batch, device=device) + 0.1, Condition.of_classes(torch.randint(2, (batch,)), 2, device)
    inputs = images, noise, sigma, labels, torch.zeros(batch, 7, device=device)
    with config.patch(fallback_random=True):  # the same masks for both
        plain, fast = (gradients(loss, denoiser, inputs, device) for loss in (denoiser.loss, compiled(denoiser.loss, network)))
    assert len(plain) == len(fast) > 100
    for expected, found in zip(plain, fast):
        assert (found - expected).norm() <= 0.5 * expected.norm() + 1e-4  # bfloat16, rounded at other places


@pytest.fixture
def traced(monkeypatch):
    """Traces and runs what is traced as it is, which takes a second where inductor takes a minute."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, dynamic=None, options=None: compile_(function, backend="eager", dynamic=dynamic))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def given(network: UNet) -> tuple[Tensor, Tensor, Condition]:
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(2), Condition.of_classes(torch.tensor([0, 1]), 2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_of_a_cohort_is_compiled(traced, checkpointing):
    """Another cohort's mean and spread are no reason to compile again."""
    network = UNet(channels=1, classes=2, size=28, widths=(16,), blocks=1, attention=(), patch=2, dropout=0.0, checkpointing=checkpointing)
    network.head.weight.data.normal_()
    x, _, labels = given(network)
    traces = []
    for mean, spread in [(0.0, 0.5), (0.3, 0.2)]:
        denoiser = Denoiser(network, torch.full((1, 28, 28), mean), spread)
        loss = compiled(denoiser.loss, network)
        inputs = x, torch.ones_like(x), torch.ones(2), labels, torch.zeros(2, 7)
        torch.testing.assert_close(loss(*inputs), denoiser.loss(*inputs))
        traces.append(traced())
    assert traces[0] == traces[1] > 0


def test_what_is_compiled_reads_a_text_as_what_is_not(traced):
    network = UNet(channels=1, classes=2, size=28, widths=(8, 16), blocks=1, attention=(), patch=2, dropout=0.0, vocabulary=5)
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    network.text.summary = lambda words, there: torch.zeros(len(words), words.shape[-1])
    x, sigma, condition = given(network)
    made = []
    for words in ([[1, 2, 0], [3, 0, 0]], [[4, 2, 0], [3, 0, 0]]):
        asked = replace(condition, text=torch.tensor(words))
        made.append(compiled(network, network)(x, sigma, asked))
        torch.testing.assert_close(made[-1], network(x, sigma, asked))
    assert (made[0][0] - made[1][0]).abs().max() > 1e-3
    torch.testing.assert_close(made[0][1], made[1][1])


def test_a_call_that_fails_leaves_the_network_as_it_was(traced):
    network = UNet(channels=1, classes=2, size=28, widths=(16,), blocks=1, attention=(), patch=2, dropout=0.0)
    with pytest.raises(RuntimeError):
        compiled(network, network)(torch.zeros(2, 3, 28, 28), *given(network)[1:])
    assert "forward" not in vars(network)


def kept_at(monkeypatch, home: Path) -> Path:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    keep_compiled()
    found = Path(os.environ[FOLDER])
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    monkeypatch.delenv(FOLDER)
    return found


def test_what_is_compiled_is_kept_in_the_users_cache_and_found_again(monkeypatch, tmp_path):
    first = kept_at(monkeypatch, tmp_path / "new")
    assert first == tmp_path.resolve() / "new" / "synthcohort" / "compiled"
    assert kept_at(monkeypatch, tmp_path / "new") == first


@pytest.mark.parametrize("trap", ["others write", "others read", "parent", "link", "file", "no home"])
def test_what_anybody_else_could_have_put_there_is_not_trusted(monkeypatch, tmp_path, trap):
    home = tmp_path / "cache"
    folder = home / "synthcohort" / "compiled"
    folder.parent.mkdir(parents=True)
    if trap in ("others write", "others read", "parent"):
        folder.mkdir(mode=0o700)
        (folder.parent if trap == "parent" else folder).chmod(0o755 if trap == "others read" else 0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        folder.write_text("")
    else:
        home = Path("/proc/none")
    found = kept_at(monkeypatch, home)
    assert found.parent != folder.parent
    assert found != tmp_path / "elsewhere"
    assert not list(found.iterdir())


def test_a_folder_that_the_user_chose_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "mine"))
    keep_compiled()
    assert os.environ[FOLDER] == str(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
