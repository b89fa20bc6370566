"""The callback in a real Trainer of transformers, with a small network made here."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import flattest as ft  # noqa: E402
from flattest.integrations import FlatnessMonitor  # noqa: E402
from flattest.integrations.transformers import FlatnessCallback  # noqa: E402

TOKENS = torch.randint(3, 40, (32, 6), generator=torch.Generator().manual_seed(0))
LABELS = TOKENS[:, 0] % 2
PROBE = {"input_ids": TOKENS[:8], "attention_mask": torch.ones_like(TOKENS[:8])}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=40,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=2,
        )
        return transformers.BertForSequenceClassification(config)


def trained(tmp_path, watch):
    net = network()
    data = [{"input_ids": row, "labels": label} for row, label in zip(TOKENS, LABELS, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=8,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        seed=5,
    )
    trainer = transformers.Trainer(net, arguments, train_dataset=data)
    watch(trainer)
    with torch.random.fork_rng():
        trainer.train()
    return trainer


def test_the_trainers_log_is_told_and_the_training_does_not_notice(tmp_path):
    monitor = FlatnessMonitor(
        PROBE, LABELS[:8], loss="cross_entropy", every=2, residual="none", random_state=0
    )
    trainer = trained(tmp_path, lambda t: t.add_callback(FlatnessCallback(monitor, log=t.log)))
    plain = trained(tmp_path, lambda t: None)
    for mine, theirs in zip(
        trainer.model.state_dict().values(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert [reading.step for reading in monitor.readings] == [0, 2, 4]
    logged = [
        (entry["step"], entry["flatness/gauss_newton"])
        for entry in trainer.state.log_history
        if "flatness/gauss_newton" in entry
    ]
    assert logged == [(r.step, r.figures["gauss_newton"]) for r in monitor.readings]
    last = ft.measure(
        trainer.model.eval(), PROBE, LABELS[:8], loss="cross_entropy", residual="none"
    )
    assert last.gauss_newton == pytest.approx(monitor.readings[-1].figures["gauss_newton"])


def test_without_a_log_the_monitors_loggers_are_told(tmp_path):
    told = []
    monitor = FlatnessMonitor(
        PROBE,
        LABELS[:8],
        loss="cross_entropy",
        every=4,
        residual="none",
        loggers=[lambda figures, step: told.append(step)],
    )
    trained(tmp_path, lambda t: t.add_callback(FlatnessCallback(monitor)))
    assert told == [0, 4]


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="monitor must be a FlatnessMonitor"):
        FlatnessCallback(None)
    with pytest.raises(TypeError, match=r"trainer\.log"):
        FlatnessCallback(FlatnessMonitor(PROBE, LABELS[:8]), log=3)
