"""The engine: order, schedule, exact resume after SIGKILL, processes, precision, and what it refuses."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from sfc.engine.checkpoint import load_checkpoint, load_finished, save_checkpoint
from sfc.engine.fit import Training, fit
from sfc.engine.interruption import Interruption
from sfc.engine.optimiser import ADAMW_WARMUP, ParameterGroup, make_optimiser, schedule, warmup_steps
from sfc.engine.processes import make_fabric
from sfc.errors import CheckpointError, ConfigError, DataError, SFCError
from sfc.settings.shared import MachineConfig, TrainingConfig

CPU = MachineConfig(accelerator="cpu", workers=0, threads=1, checkpoint_every=4)


class Points(Dataset):
    """40 points whose noise is a function of (epoch, index)."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 40

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | Exception:
        epoch, index = key
        if index == self.broken:
            return DataError(f"{index}.jpg", "the file is truncated")
        x = np.random.default_rng([7, epoch, index]).normal(size=5).astype(np.float32)
        return {"x": torch.from_numpy(x), "y": torch.tensor([float(x.sum() + index / 40)])}


class Regression(nn.Module):
    """Least squares with dropout, which draws from the main generator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        loss = ((self.net(x) - y) ** 2).mean()
        return {"error": loss, "total": loss}


def training(samples: Dataset | None = None, **options: object) -> Training:
    objective = Regression()
    return Training(
        objective=objective,
        model=objective.net,
        samples=samples or Points(),
        groups=[ParameterGroup(list(objective.net.parameters()))],
        fingerprint={"rate": 1},
        seed=3,
        warmup=2,
        clip=1.0,
        **options,
    )


def train(folder: Path, config: TrainingConfig, machine: MachineConfig = CPU, **options: object) -> Training:
    this = training(**options)
    fit(make_fabric(machine), this, config, machine, folder, "test")
    return this


CONFIG = TrainingConfig(optimiser="sgd", learning_rate=0.05, batch=8, epochs=6)


def test_schedule_is_poly_after_a_linear_warm_up() -> None:
    assert schedule(0, 100) == 1
    assert schedule(50, 100) == pytest.approx(0.5**0.9)
    assert schedule(99, 100) == pytest.approx(0.01**0.9)
    assert schedule(0, 100, warmup=10) == pytest.approx(0.1)
    assert schedule(20, 100, warmup=10) == schedule(20, 100)


def test_schedule_may_be_renewed_every_few_steps_only() -> None:
    expected = [schedule(step - step % 10, 95) for step in range(95)]
    assert [schedule(step, 95, poly_every=10) for step in range(95)] == expected
    assert len(set(expected)) == 10


@pytest.mark.parametrize(
    ("optimiser", "kind", "momentum", "warmup"),
    [
        ("sgd", torch.optim.SGD, 0.9, 0),
        ("sgd-released", torch.optim.SGD, 1e-4, 0),
        ("adamw", torch.optim.AdamW, None, ADAMW_WARMUP),
    ],
)
def test_an_optimiser_comes_with_its_momentum_and_warm_up(
    optimiser: str, kind: type[torch.optim.Optimizer], momentum: float | None, warmup: int
) -> None:
    config = TrainingConfig(optimiser=optimiser, learning_rate=0.2, weight_decay=0.3)
    made = make_optimiser(config, [ParameterGroup([nn.Parameter(torch.ones(1))], factor=5, decay=True)])
    (group,) = made.param_groups
    assert type(made) is kind
    assert (group.get("momentum"), group["lr"], group["weight_decay"]) == (momentum, 1.0, 0.3)
    assert warmup_steps(config) == warmup


def test_gradients_are_clipped_where_the_training_says_so(tmp_path: Path) -> None:
    weights = {}
    for clip in (0.0, 1e-3):
        this = training()
        this.clip, before = clip, torch.cat([p.detach().flatten() for p in this.model.parameters()])
        fit(make_fabric(CPU), this, replace(CONFIG, epochs=1), CPU, tmp_path / str(clip), "test")
        weights[clip] = torch.cat([p.detach().flatten() for p in this.model.parameters()]) - before
    # Five steps of a velocity of at most 1e-3 / (1 - 0.9) and some weight decay.
    assert weights[1e-3].norm() < 5 * 0.05 * 1e-2 + 1e-3
    assert weights[0.0].norm() > 10 * weights[1e-3].norm()


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are heard, also where the tests themselves run in the background of a shell, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_any_step_it_saves_that_step_and_goes_on_bit_identical(tmp_path: Path, number: int) -> None:
    rare = replace(CPU, checkpoint_every=1000)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(batch: dict[str, Tensor], host: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        if step == 5:
            os.kill(os.getpid(), number)
        return batch

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", CONFIG, rare, before_step=interrupt)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 6
    assert len((tmp_path / "parts" / "log.csv").read_text().splitlines()) == 1 + 6
    parts, whole = train(tmp_path / "parts", CONFIG, rare), train(tmp_path / "whole", CONFIG, rare)
    for a, b in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("pause", "saved"), [(0.0, 3), (2.0, 2)])
def test_a_second_interruption_does_not_wait_unless_it_is_the_first_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float, saved: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("sfc.engine.interruption.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def interrupt(batch: dict[str, Tensor], host: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            clock[0] += pause
            os.kill(os.getpid(), signal.SIGINT)
        return batch

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, replace(CPU, checkpoint_every=2), before_step=interrupt)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == saved


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption(alone=True):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption(alone=True):
        os.kill(os.getpid(), signal.SIGTERM)


TRAINING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_fit import CONFIG, CPU, train
from dataclasses import replace
train(Path({folder!r}), replace(CONFIG, epochs=400), replace(CPU, workers=1, checkpoint_every=10**6))
"""


def test_a_signal_to_the_whole_group_lets_the_workers_finish_the_step(tmp_path: Path) -> None:
    code = TRAINING.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "DataLoader worker" not in said
    step = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"]
    assert 3 <= step < 2000
    assert len(log.read_text().splitlines()) == 1 + step


def test_a_slow_training_is_saved_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    clock = [0.0]
    monkeypatch.setattr("sfc.engine.interruption.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("sfc.engine.fit.save_checkpoint", lambda path, content: saved.append(content["step"]))

    def wait(batch: dict[str, Tensor], host: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        clock[0] += 100
        return batch

    train(tmp_path, replace(CONFIG, epochs=2), replace(CPU, checkpoint_every=1000), before_step=wait)
    assert saved == [4, 8, 10]


def test_training_learns_and_logs_every_step(tmp_path: Path) -> None:
    train(tmp_path, CONFIG)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(30))
    losses = [float(row["total"]) for row in rows]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.025)
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert list((tmp_path / "tensorboard").glob("events*"))


class Interrupted(Exception):
    """Stands for anything that ends a process between two steps."""


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 29])
def test_resumed_run_has_the_same_weights_and_log(tmp_path: Path, stop: int) -> None:
    whole = train(tmp_path / "whole", CONFIG)

    def interrupt(batch: dict, host: dict, step: int) -> dict:
        if step == stop:
            raise Interrupted
        return batch

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", CONFIG, before_step=interrupt)
    resumed = train(tmp_path / "parts", CONFIG)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    columns = [0, 1, 2, 3]  # all but the throughput
    logs = [
        [[row.split(",")[i] for i in columns] for row in (tmp_path / name / "log.csv").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


def test_a_batch_in_parts_makes_the_steps_of_the_whole(tmp_path: Path) -> None:
    def halves(batch: dict) -> list[dict]:
        return [{name: value[part] for name, value in batch.items()} for part in (slice(0, 4), slice(4, 8))]

    weights, logs = [], []
    for name, split in (("whole", None), ("parts", halves)):
        this = training(split=split)
        this.objective.net[1] = nn.Identity()  # each part draws its own dropout
        fit(make_fabric(CPU), this, CONFIG, CPU, tmp_path / name, "test")
        weights.append(torch.cat([p.detach().flatten() for p in this.model.parameters()]))
        with (tmp_path / name / "log.csv").open() as file:
            logs.append([float(row["total"]) for row in csv.DictReader(file)])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)


def test_groups_may_go_without_weight_decay(tmp_path: Path) -> None:
    """Where the gradient is zero, only weight decay moves a weight."""

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decayed, self.kept = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"total": 0 * (self.decayed.sum() + self.kept.sum())}

    for optimiser in ("sgd", "sgd-released", "adamw"):
        still = Still()
        groups = [ParameterGroup([still.decayed]), ParameterGroup([still.kept], decay=False)]
        this = Training(objective=still, model=still, samples=Points(), groups=groups, fingerprint={}, seed=3)
        config = replace(CONFIG, optimiser=optimiser, weight_decay=0.1)
        fit(make_fabric(CPU), this, config, CPU, tmp_path / optimiser, "test")
        assert (still.kept == 1).all()
        assert (still.decayed < 0.99).all()


SCRIPT = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import test_fit as t
    from dataclasses import replace
    def slow(batch, host, step):
        time.sleep(0.01)
        return batch
    t.train(Path(sys.argv[1]), t.CONFIG, replace(t.CPU, workers=2), before_step=slow)
""")


def test_killed_at_any_moment_and_started_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", CONFIG)
    command = [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent)), str(tmp_path / "killed")]
    log, kills = tmp_path / "killed" / "log.csv", 0
    for wanted in (3, 11, 17):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            checkpoint = tmp_path / "killed" / "checkpoint.pt"
            # Rows reach the file when a checkpoint is made; between two of them the kill falls anywhere.
            if log.exists() and checkpoint.exists() and len(log.read_text().splitlines()) > wanted:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.001)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert kills >= 2
    saved = load_checkpoint(tmp_path / "killed" / "checkpoint.pt")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(saved["model"][name], value)
    assert not list((tmp_path / "killed").glob(".*.tmp")) or kills  # a kill may leave a temporary file, never a half


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    train(tmp_path, CONFIG)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns

    def never(batch: dict, host: dict, step: int) -> dict:
        raise Interrupted

    train(tmp_path, CONFIG, before_step=never)
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    train(tmp_path, CONFIG)
    other = training()
    other.fingerprint = {"rate": 2}
    with pytest.raises(ConfigError, match="rate was 1 and is 2"):
        fit(make_fabric(CPU), other, CONFIG, CPU, tmp_path, "test")


def test_a_finished_training_is_loaded_only_for_what_it_was_begun_with(tmp_path: Path) -> None:
    train(tmp_path, CONFIG)
    path = tmp_path / "checkpoint.pt"
    assert load_finished(path, {"rate": 1})["step"] == 30
    assert load_finished(path, {})["step"] == 30
    with pytest.raises(ConfigError, match=r"checkpoint\.pt was begun with other settings: rate was 1 and is 2"):
        load_finished(path, {"rate": 2})
    with pytest.raises(ConfigError, match="colour was None and is 'red'"):
        load_finished(path, {"rate": 1, "colour": "red"})
    save_checkpoint(path, {**load_checkpoint(path), "step": 12})
    with pytest.raises(CheckpointError, match="training stopped at step 12 of 30; finish it first"):
        load_finished(path, {"rate": 1})


def test_how_often_it_saves_may_change_within_a_training(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", CONFIG)

    def interrupt(batch: dict, host: dict, step: int) -> dict:
        if step == 11:
            raise Interrupted
        return batch

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", CONFIG, replace(CPU, checkpoint_every=5), before_step=interrupt)
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 10
    resumed = train(tmp_path / "parts", CONFIG, replace(CPU, checkpoint_every=7))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, CONFIG)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: the checkpoint is damaged"):
        train(tmp_path, CONFIG)


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"format": 1, "evil": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "evil").exists()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, on a machine with one
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_ends_training_with_its_own_message(tmp_path: Path, workers: int) -> None:
    machine = replace(CPU, workers=workers)
    with pytest.raises(DataError, match=r"^13\.jpg: the file is truncated$"):
        train(tmp_path, CONFIG, machine, samples=Points(broken=13))


def test_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    def poison(batch: dict, host: dict, step: int) -> dict:
        return {**batch, "y": batch["y"] * float("nan")} if step == 6 else batch

    with pytest.raises(SFCError, match="loss is nan at step 6"):
        train(tmp_path, CONFIG, before_step=poison)
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved["step"] == 4
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


class Steep(torch.autograd.Function):
    """The identity, with a gradient that is no number."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


@pytest.mark.parametrize(("steep", "message"), [(7, "weights are no longer finite after"), (5, "the loss is nan at")])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_saved(
    tmp_path: Path, steep: int, message: str
) -> None:
    """Also that of the last step before a checkpoint, whose loss is finite."""
    this, seen = training(), []
    loss = this.objective.forward

    def forward(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        losses = loss(x, y)
        return {**losses, "total": Steep.apply(losses["total"])} if seen[-1] == steep else losses

    def watched(batch: dict, host: dict, step: int) -> dict:
        seen.append(step)
        return batch

    this.objective.forward, this.before_step = forward, watched
    with pytest.raises(SFCError, match=f"^{message} step [67]: lower training.learning_rate; the last checkpoint "):
        fit(make_fabric(CPU), this, CONFIG, CPU, tmp_path, "test")
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved["step"] == 4
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_losses_that_are_read_seldom_are_the_same_and_stop_before_the_weights_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(batch: dict, host: dict, step: int) -> dict:
        return {**batch, "y": batch["y"] * float("nan")} if step == 6 else batch

    def losses(folder: Path) -> list[str]:
        return [row.rsplit(",", 1)[0] for row in (folder / "log.csv").read_text().splitlines()]

    train(tmp_path / "often", CONFIG)
    monkeypatch.setattr("sfc.engine.fit.steps_between_reads", lambda device: 3)
    train(tmp_path / "seldom", CONFIG)
    assert losses(tmp_path / "seldom") == losses(tmp_path / "often")
    monkeypatch.setattr("sfc.engine.fit.steps_between_reads", lambda device: 1000)
    with pytest.raises(SFCError, match="loss is nan at step 6"):
        train(tmp_path / "poisoned", CONFIG, before_step=poison)
    saved = load_checkpoint(tmp_path / "poisoned" / "checkpoint.pt")
    assert saved["step"] == 4
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


@pytest.mark.parametrize("together", [1, 3, 1000])
def test_steps_whose_losses_are_read_together_share_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("sfc.engine.training_log.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr("sfc.engine.fit.steps_between_reads", lambda device: together)

    def wait(batch: dict, host: dict, step: int) -> dict:
        clock[0] += 2
        return batch

    train(tmp_path, CONFIG, before_step=wait)
    with (tmp_path / "log.csv").open() as file:
        assert [float(row["images_per_second"]) for row in csv.DictReader(file)] == [8 / 2] * 30


def test_state_of_the_optimiser_goes_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Fabric.setup` moves weights to their device; another dtype stands for it here."""

    def interrupt(batch: dict, host: dict, step: int) -> dict:
        if step == 6:
            raise Interrupted
        return batch

    with pytest.raises(Interrupted):
        train(tmp_path, CONFIG, before_step=interrupt)
    setup, made = Fabric.setup, []

    def moving(fabric: Fabric, objective: nn.Module, optimiser: torch.optim.Optimizer) -> tuple:
        made.extend(setup(fabric, objective, optimiser))
        made[0].double()
        return tuple(made)

    def stop(batch: dict, host: dict, step: int) -> dict:
        raise Interrupted

    monkeypatch.setattr(Fabric, "setup", moving)
    with pytest.raises(Interrupted):
        train(tmp_path, CONFIG, before_step=stop)
    weights = made[1].param_groups[0]["params"]
    moments = [value for weight in weights for value in made[1].state[weight].values() if value.shape == weight.shape]
    assert moments
    assert all(value.dtype == torch.float64 for value in (*weights, *moments))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_sentence_and_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    monkeypatch.setattr("sfc.run.files.os.fdopen", lambda descriptor, mode: open("/dev/full", mode))
    with pytest.raises(SFCError, match=r"checkpoint\.pt: cannot be written"):
        save_checkpoint(path, {"step": 2, "weights": torch.zeros(100000)})
    monkeypatch.undo()
    assert load_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_threads_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning, where it launches processes, shares the cores out among them."""
    before = torch.get_num_threads()
    monkeypatch.setattr(Fabric, "launch", lambda self: torch.set_num_threads(2))
    try:
        make_fabric(replace(CPU, threads=3))
        assert torch.get_num_threads() == 3
        make_fabric(replace(CPU, threads=0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_machine_without_a_gpu_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="machine"):
        make_fabric(MachineConfig(accelerator="cuda"))
