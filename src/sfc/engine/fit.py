"""The training engine of every stage: devices and processes, order, schedule, checkpoints, logs, progress.

Order, augmentation and all other randomness are pure functions of the seed and the step, so that a run stopped at any
moment and started again takes exactly the steps that it would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sfc.engine.checkpoint import load_checkpoint, save_checkpoint
from sfc.engine.interruption import Interruption, leave_signals_to_the_parent
from sfc.engine.loading import affordable
from sfc.engine.memory import memory_kept
from sfc.engine.optimiser import ParameterGroup, make_optimiser, schedule
from sfc.engine.order import StepBatches, steps_per_epoch
from sfc.engine.training_log import TrainingLog
from sfc.errors import ConfigError, SFCError
from sfc.run.origin import require_same
from sfc.run.provenance import versions
from sfc.settings.shared import MachineConfig, TrainingConfig

Batch = dict[str, Any]


class Stateful(Protocol):
    """Something beside the model that a resumed run needs back, such as the image bank."""

    def state_dict(self) -> dict[str, Any]:
        """What to save: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        ...


@dataclass
class Training:
    """What one training stage gives to `fit`.

    Args:
        objective: module whose forward takes a batch's entries and returns scalar tensors by name; the one
            named `total` is minimised.
        model: the part of it whose weights are saved and used later.
        samples: map-style data set with keys (epoch, index), each sample a dict of tensors and a pure function of its
            key; a sample that cannot be read is an exception instance instead of a dict.
        groups: what the optimiser trains.
        fingerprint: plain values that must not change between the parts of an interrupted run.
        seed: of order, augmentation and all that is drawn in a step.
        warmup: steps over which the learning rate rises linearly from 0.
        poly_every: steps between two changes of the learning rate's decay.
        clip: gradient norm above which gradients are scaled down; 0: never.
        before_step: changes a batch on its device, for instance by appending images from the bank; it is also given
            the batch as it is in the host's memory, to look at values without waiting for the device, and the step.
        split: makes parts of such a batch, which go through the network one after the other to save memory, as many on
            every process. The mean of a loss term over parts and processes must be that of the whole batch.
        states: what a resumed run needs back, by name.
        image_weights: float64 [images], how often an epoch shows each against the others; None: each once.
        after_epoch: called on every process with the epoch just finished (counted from 1), model in training mode.
    """

    objective: nn.Module
    model: nn.Module
    samples: Dataset[Any]
    groups: Sequence[ParameterGroup]
    fingerprint: Mapping[str, Any]
    seed: int
    warmup: int = 0
    poly_every: int = 1
    clip: float = 0.0
    before_step: Callable[[Batch, Batch, int], Batch] | None = None
    split: Callable[[Batch], Sequence[Batch]] | None = None
    states: Mapping[str, Stateful] = field(default_factory=dict)
    image_weights: NDArray[np.float64] | None = None
    after_epoch: Callable[[int], None] | None = None


def steps_between_reads(device: torch.device) -> int:
    """Steps after which losses are read from their device: whoever reads waits for all that it still has to do."""
    return 1 if device.type == "cpu" else 20


def collate(samples: list[Any]) -> Batch | Exception:
    """Stacks samples; the first unreadable one takes the place of its batch, so that its message reaches the user."""
    for sample in samples:
        if isinstance(sample, Exception):
            return sample
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def fit(
    fabric: Fabric, job: Training, config: TrainingConfig, machine: MachineConfig, folder: Path, title: str
) -> None:
    """Trains to the last step, going on from `folder`/checkpoint.pt if there is one.

    Args:
        fabric: from `make_fabric`.
        job: what to train.
        config: optimiser and length.
        machine: precision, workers, checkpoints.
        folder: gets checkpoint.pt, log.csv and TensorBoard events.
        title: shown beside the progress bar.

    Raises:
        ConfigError: the folder holds a run of other settings.
        CheckpointError: its checkpoint is damaged.
        DataError: an image cannot be read.
        SFCError: the loss, or a weight that would be saved, is no longer a finite number.
        KeyboardInterrupt: SIGINT or SIGTERM; what was done is saved (see `Interruption`).
    """
    _Fit(fabric, job, config, machine, folder).run(title)


class _Fit:
    def __init__(
        self, fabric: Fabric, job: Training, config: TrainingConfig, machine: MachineConfig, folder: Path
    ) -> None:
        self.fabric, self.job, self.config, self.machine = fabric, job, config, machine
        self.checkpoint = folder / "checkpoint.pt"
        self.log_folder = folder
        self.images = len(job.samples)  # type: ignore[arg-type]
        if self.images == 0:
            raise ConfigError("there is no image to train on")
        self.per_epoch = steps_per_epoch(self.images, config)
        self.steps = config.epochs * self.per_epoch
        self.versions = versions()
        self.read_every = steps_between_reads(fabric.device)

    def run(self, title: str) -> None:
        fabric, job = self.fabric, self.job
        # Read before the optimiser is made, so that a finished stage costs nothing.
        saved = load_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        if saved is not None:
            require_same(self.checkpoint, saved["fingerprint"], job.fingerprint)
            job.model.load_state_dict(saved["model"])
            if saved["step"] == self.steps:
                job.model.to(fabric.device)
                return
        job.objective.to(memory_format=torch.channels_last)
        if self.machine.compile:
            job.objective.compile()
        optimiser = make_optimiser(self.config, job.groups)
        objective, optimiser = fabric.setup(job.objective, optimiser)
        if saved is not None:
            # Only now are the weights on their device, where the optimiser puts its state too.
            optimiser.load_state_dict(saved["optimiser"])
            for name, state in self._own_states(saved).items():
                job.states[name].load_state_dict(state)
        self._steps(objective, optimiser, saved["step"] if saved else 0, title)

    def _steps(self, objective: nn.Module, optimiser: torch.optim.Optimizer, first: int, title: str) -> None:
        fabric, config = self.fabric, self.config
        rank, world = fabric.global_rank, fabric.world_size
        batches = StepBatches(self.images, config, self.job.seed, first, rank, world, self.job.image_weights)
        ahead = affordable(self.job.samples, config.batch, self.machine.workers, fabric.is_global_zero)
        loader = DataLoader(
            self.job.samples,
            batch_sampler=batches,
            num_workers=ahead.workers,
            collate_fn=collate,
            pin_memory=fabric.device.type == "cuda",
            prefetch_factor=ahead.batches or None,
            worker_init_fn=leave_signals_to_the_parent,
        )
        objective.train()
        pending: list[tuple[int, dict[str, Tensor], float]] = []
        with (
            memory_kept() if fabric.device.type == "cpu" else nullcontext(),
            TrainingLog(self.log_folder, title, self.steps, first, active=fabric.is_global_zero) as log,
            Interruption(alone=fabric.world_size == 1) as interruption,
        ):
            for step, batch in enumerate(loader, start=first):
                if isinstance(batch, Exception):
                    raise batch
                losses = self._step(objective, optimiser, batch, step)
                done = step + 1
                is_due = done % self.machine.checkpoint_every == 0 or done == self.steps or interruption.is_due
                pending.append((step, losses, optimiser.param_groups[0]["lr"]))
                if is_due or len(pending) == self.read_every or done % self.per_epoch == 0:
                    self._record(log, pending)
                if is_due:
                    self._require_finite_weights(step)
                if done % self.per_epoch == 0 and self.job.after_epoch is not None:
                    self.job.after_epoch(done // self.per_epoch)
                    objective.train()
                if is_due:
                    log.flush()
                    self._save(optimiser, done)
                    interruption.saved()

    def _record(self, log: TrainingLog, pending: list[tuple[int, dict[str, Tensor], float]]) -> None:
        """Enters steps into the log; the one place where the host waits for the device.

        Raises:
            SFCError: a loss is not finite.
        """
        read = [dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True)) for _, losses, _ in pending]
        current = self.config.batch / log.seconds_each(len(pending))
        for (step, _, learning_rate), values in zip(pending, read, strict=True):
            if not math.isfinite(values["total"]):
                raise self._diverged(f"the loss is {values['total']} at step {step}")
            log.record(step, values, learning_rate, current)
        pending.clear()

    def _require_finite_weights(self, step: int) -> None:
        """Refuses to save what no training can go on from: a finite loss may have a gradient that is not.

        Between two checkpoints the loss of the next step tells, and no step waits for it.

        Raises:
            SFCError: a weight is not finite.
        """
        if not torch.stack([weight.isfinite().all() for weight in self.job.model.parameters()]).all():
            raise self._diverged(f"weights are no longer finite after step {step}")

    def _diverged(self, what: str) -> SFCError:
        return SFCError(f"{what}: lower training.learning_rate; the last checkpoint ({self.checkpoint}) is from before")

    def _step(self, objective: nn.Module, optimiser: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """One optimiser step; returns the loss terms, which are still on the device."""
        fabric, config = self.fabric, self.config
        # Dropout and the like draw from here: a pure function of seed, step and process, so nothing needs saving.
        torch.manual_seed(int(np.random.SeedSequence([self.job.seed, step, fabric.global_rank]).generate_state(1)[0]))
        factor = schedule(step, self.steps, self.job.warmup, self.job.poly_every)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * group["factor"] * factor
        host = batch
        batch = {name: value.to(fabric.device, non_blocking=True) for name, value in host.items()}
        if self.job.before_step is not None:
            batch = self.job.before_step(batch, host, step)
        optimiser.zero_grad(set_to_none=True)
        losses = self._backward(objective, self.job.split(batch) if self.job.split is not None else [batch])
        if self.job.clip:
            fabric.clip_gradients(objective, optimiser, max_norm=self.job.clip, error_if_nonfinite=False)
        stacked = torch.stack(list(losses.values()))
        # The mean over processes is what one process with the whole batch would have seen.
        mean = fabric.all_reduce(stacked, reduce_op="mean")
        assert isinstance(mean, Tensor)
        optimiser.step()
        return dict(zip(losses, mean, strict=True))

    def _backward(self, objective: Any, parts: Sequence[Batch]) -> dict[str, Tensor]:
        """Adds up the gradients of all parts; returns the mean of each loss term over them."""
        terms = []
        for number, part in enumerate(parts, start=1):
            # Processes add up their gradients once, with the last part.
            with self.fabric.no_backward_sync(objective, enabled=number < len(parts)):
                losses: dict[str, Tensor] = objective(**part)
                self.fabric.backward(losses["total"] / len(parts))
            terms.append({name: value.detach().float() for name, value in losses.items()})
        return {name: torch.stack([each[name] for each in terms]).mean() for name in terms[0]}

    def _save(self, optimiser: Any, step: int) -> None:
        """One checkpoint; states of other processes lie beside it under names with the step, and old ones go after."""
        fabric, job = self.fabric, self.job
        states = {name: state.state_dict() for name, state in job.states.items()}
        if fabric.global_rank:
            save_checkpoint(self._rank_file(fabric.global_rank, step), {"states": states})
        fabric.barrier()
        if fabric.is_global_zero:
            save_checkpoint(
                self.checkpoint,
                {
                    "fingerprint": dict(job.fingerprint),
                    "step": step,
                    "steps": self.steps,
                    "versions": self.versions,
                    "model": job.model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "states": states,
                },
            )
        fabric.barrier()
        if fabric.global_rank:
            for old in self.checkpoint.parent.glob(f"checkpoint.rank{fabric.global_rank}.*.pt"):
                if old != self._rank_file(fabric.global_rank, step):
                    old.unlink(missing_ok=True)

    def _rank_file(self, rank: int, step: int) -> Path:
        return self.checkpoint.with_name(f"checkpoint.rank{rank}.step{step}.pt")

    def _own_states(self, saved: dict[str, Any]) -> dict[str, Any]:
        """This process's states; a process that was not there before starts from the first one's."""
        path = self._rank_file(self.fabric.global_rank, saved["step"])
        states: dict[str, Any] = (load_checkpoint(path) if path.exists() else saved)["states"]
        return states
