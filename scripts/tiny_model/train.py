"""Training: step-based and seeded, first with float weights, then with ternary ones from there."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from tiny_model.batches import Batches
from tiny_model.embedding.encoder import Encoder
from tiny_model.network import Network, Shape
from tiny_model.vocabulary import Vocabulary

MUON_RATE: Final = 0.02
ADAM_RATE: Final = 3e-3
WARM_UP_STEPS: Final = 20
FLAT_SHARE: Final = 0.4
LAST_RATE_SHARE: Final = 0.01
REPORT_EVERY_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Run:
    """One training run; `start` is the checkpoint to begin from.

    On a CPU several single-threaded workers that share each step's rows cost less than half of what as many threads
    in one process do, because these matrices are too small to split.
    """

    steps: int
    seed: int
    ternary: bool
    device: str
    workers: int
    start: Path | None
    result: Path
    peak: float = 1.0
    """Share of the full learning rates; less than 1 when a trained network only learns something new."""


def train(run: Run, vocabulary: Vocabulary) -> None:
    """Train and write the checkpoint. Progress goes to stdout."""
    if run.workers == 1:
        _work(0, run, vocabulary, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = Path(folder, "workers").as_uri()
        spawn(_work, (run, vocabulary, meeting_point), nprocs=run.workers)  # type: ignore[no-untyped-call]


def _work(worker: int, run: Run, vocabulary: Vocabulary, meeting_point: str | None) -> None:
    """One worker's training loop; all workers hold the same weights all the time."""
    torch.manual_seed(run.seed)
    if run.device == "cpu":
        torch.set_num_threads(1)
    if meeting_point is not None:
        dist.init_process_group("gloo", init_method=meeting_point, rank=worker, world_size=run.workers)
    network = Network(Shape(len(vocabulary.tokens)), ternary=run.ternary).to(run.device)
    if run.start is not None:
        network.load_state_dict(torch.load(run.start, map_location=run.device)["weights"])
    batches = Batches(vocabulary, run.seed, worker, run.workers)
    shares = [network.linear_weights()[i :: run.workers] for i in range(run.workers)]
    optimizers = make_optimizers(network, shares[worker])
    started_s, average = time.monotonic(), 0.0
    for step in range(run.steps):
        set_rate(optimizers, run.peak * rate_share(step, run.steps))
        answer_loss = _step(network, optimizers, batches, run)
        if run.workers > 1:
            _share_weights(shares)
        average = answer_loss if step == 0 else 0.95 * average + 0.05 * answer_loss
        if worker == 0 and (step + 1) % REPORT_EVERY_STEPS == 0:
            print(f"step={step + 1} answer_loss={average:.4f} seconds={time.monotonic() - started_s:.0f}", flush=True)
            save(network, run.result)
    if worker == 0:
        save(network, run.result)
    if meeting_point is not None:
        dist.destroy_process_group()


def save(network: Network, path: Path) -> None:
    """Write shape and weights."""
    partial = path.with_suffix(".partial")
    torch.save({"shape": asdict(network.shape), "weights": network.state_dict()}, partial)
    partial.replace(path)


def load(path: Path, *, ternary: bool) -> Network:
    """Read a checkpoint back."""
    stored = torch.load(path, map_location="cpu")
    network = Network(Shape(**stored["shape"]), ternary=ternary)
    network.load_state_dict(stored["weights"])
    return network.eval()


def make_optimizers(network: Network | Encoder, linear: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for this worker's share of the linear layers, AdamW for embedding and norms."""
    known = {id(weight) for weight in network.linear_weights()}
    others = [weight for weight in network.parameters() if id(weight) not in known]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(linear, lr=MUON_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return optimizers


def rate_share(step: int, steps: int) -> float:
    """Warm up, stay, then fall in a line to one percent."""
    fall = (1 - step / steps) / (1 - FLAT_SHARE)
    return min(1.0, (step + 1) / WARM_UP_STEPS, max(LAST_RATE_SHARE, fall))


def set_rate(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Let every group learn at this share of its full rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * share


def _step(network: Network, optimizers: list[torch.optim.Optimizer], batches: Batches, run: Run) -> float:
    """One update; returns the mean loss of the answers' tokens in nats."""
    batch = batches.next()
    ids, weights = batch.ids.to(run.device), batch.weights.to(run.device)
    with torch.autocast(run.device, torch.bfloat16):
        logits = network(ids[:, :-1])
    losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view_as(weights)
    loss: Tensor = (losses * weights).sum() / weights.sum()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if run.workers > 1:
        _share_gradients(network, run.workers)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(losses.detach()[weights == 1].mean())


def _share_weights(shares: list[list[nn.Parameter]]) -> None:
    """Muon is dear, so each worker updates only its share of the layers and hands the result to the others."""
    with torch.no_grad():
        for owner, weights in enumerate(shares):
            flat = torch.cat([weight.flatten() for weight in weights])
            dist.broadcast(flat, owner)
            for weight, new in zip(weights, torch.split(flat, [w.numel() for w in weights]), strict=True):
                weight.copy_(new.view_as(weight))


def _share_gradients(network: Network, workers: int) -> None:
    """Replace each worker's gradients with the mean of all workers'."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
