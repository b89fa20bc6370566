"""The callback in a real Lightning trainer."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch")

from flattest.integrations import FlatnessMonitor  # noqa: E402
from flattest.integrations.lightning import FlatnessCallback  # noqa: E402

X = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (48,), generator=torch.Generator().manual_seed(1))


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Logger(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.told = []

    def log_metrics(self, metrics, step=None):
        if "flatness/trace" in metrics:
            self.told.append((step, dict(metrics)))


def fit(tmp_path, callbacks, logger=False, **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Module()
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=callbacks,
            logger=logger,
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(module, DataLoader(TensorDataset(X, Y), 8, shuffle=True))
    return [t.tolist() for t in module.state_dict().values()]


@pytest.fixture(autouse=True)
def _quiet(recwarn):
    """Lightning advises on workers and intervals of logging."""


@pytest.mark.parametrize("network", ["", "net"])
def test_the_trainers_logger_is_told_and_the_training_does_not_notice(tmp_path, network):
    monitor = FlatnessMonitor(X[:12], Y[:12], loss="cross_entropy", every=4)
    logger = Logger()
    trained = fit(tmp_path, [FlatnessCallback(monitor, network)], logger)
    assert trained == fit(tmp_path, [])
    assert [reading.step for reading in monitor.readings] == [0, 4, 8, 12]
    assert [step for step, _ in logger.told] == [0, 4, 8, 12]
    for (_, metrics), reading in zip(logger.told, monitor.readings, strict=True):
        assert metrics["flatness/trace"] == reading.figures["trace"]
        assert 0 < metrics["flatness/share_of_time"] <= 1


def test_accumulated_gradients_count_as_one_step(tmp_path):
    monitor = FlatnessMonitor(X[:12], Y[:12], loss="cross_entropy", every=2)
    fit(tmp_path, [FlatnessCallback(monitor)], accumulate_grad_batches=2)
    assert [reading.step for reading in monitor.readings] == [0, 2, 4, 6]


def test_its_own_csv_logger_writes_the_figures(tmp_path):
    monitor = FlatnessMonitor(X[:12], Y[:12], loss="cross_entropy", every=6)
    logger = pl.loggers.CSVLogger(tmp_path)
    fit(tmp_path, [FlatnessCallback(monitor)], logger)
    text = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "flatness/trace" in text.splitlines()[0]


def test_a_wrong_probe_stops_the_run_before_it_starts(tmp_path):
    monitor = FlatnessMonitor(X[:12, :3], Y[:12], loss="cross_entropy")
    with pytest.raises((ValueError, RuntimeError)):
        fit(tmp_path, [FlatnessCallback(monitor)])


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(TypeError, match="monitor must be a FlatnessMonitor"):
        FlatnessCallback(3)
    monitor = FlatnessMonitor(X, Y, loss="cross_entropy")
    with pytest.raises(ValueError, match="'head', which is no part of the Module"):
        fit(tmp_path, [FlatnessCallback(monitor, "head")])
