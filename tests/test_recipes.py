"""docs/recipes.md on two processes, and what it says of averages, precisions and lookups. (test_docs.py runs its blocks.)"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import raremem

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text()
LIGHTNING, HUGGING_FACE = re.findall(r"^```python\n(.*?)^```\n", PAGE, re.DOTALL | re.MULTILINE)


def names_of(block, until):
    """What a block of the page defines before this line."""
    names = {"__name__": "page"}
    exec(compile(block.partition(until)[0], "recipes.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def lightning():
    return names_of(LIGHTNING, "whole, trainer = fit(4)")


def fitted(lightning, **options):
    """One epoch of the page's network, with options of the trainer."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 16
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(16, 20)[labels] + 0.1 * torch.randn(64, 20), labels), batch_size=16
    )
    network = lightning["Network"]()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning["lightning"].Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, **options})
    trainer.fit(network, data, data)
    return network


def test_averages_of_weights(lightning):
    from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

    with pytest.raises(raremem.StateError, match=r"AveragedModel\(use_buffers=False\)"):
        fitted(lightning, max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.9)])
    for callback in (EMAWeightAveraging(decay=0.9, use_buffers=False), StochasticWeightAveraging(1e-3, swa_epoch_start=1)):
        network = fitted(lightning, max_epochs=3, callbacks=[callback])
        plain = fitted(lightning, max_epochs=3)
        assert torch.equal(network.memory.values, plain.memory.values)
        assert network.memory(torch.randn(2, 16)).found.all()


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"precision": "16-true"}, {"accumulate_grad_batches": 3}], ids=str
)
def test_precisions_and_accumulated_gradients(lightning, options):
    memory = fitted(lightning, **options).memory
    assert memory.keys.dtype == torch.float32
    assert int(memory.step) == 4 or options["precision"] == "16-true"  # Adam diverges there, and such rows are not written


RANKS = """
from raremem.adapters import distributed


class Parallel(Network):
    def training_step(self, batch):
        rows, labels = batch
        out = self.memory(self.body(rows), labels)
        distributed.update(self.memory, out)
        return out.loss.mean()
"""
LIGHTNING_RANKS = (
    RANKS
    + """
from lightning.pytorch.strategies import DDPStrategy

torch.manual_seed(0)
labels = torch.arange(160) % 40
data = DataLoader(TensorDataset(torch.randn(40, 20)[labels], labels), batch_size=8)
network, quiet = Parallel(), {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
strategy = DDPStrategy(broadcast_buffers=False, process_group_backend="gloo")
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", devices=2, strategy=strategy, enable_checkpointing=False, **quiet)
trainer.fit(network, data)
torch.save(network.memory.state_dict(), f"rank-{trainer.global_rank}.pt")
"""
)
HUGGING_FACE_RANKS = """
from raremem.adapters import distributed


class Parallel(MemoryTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = Trainer.training_step(self, model, inputs, num_items_in_batch)
        distributed.update(self.accelerator.unwrap_model(model).memory, self.asked)
        return loss


torch.manual_seed(0)
options = TrainingArguments(
    "parallel", max_steps=6, use_cpu=True, report_to=[], disable_tqdm=True, per_device_train_batch_size=8,
    save_strategy="no", ddp_broadcast_buffers=False,
)
trainer = Parallel(Network(), options, train_dataset=data)
trainer.train()
torch.save(trainer.accelerator.unwrap_model(trainer.model).memory.state_dict(), f"rank-{options.process_index}.pt")
"""


@pytest.mark.parametrize("trainer", ["lightning", "hugging face"])
def test_two_processes_hold_the_same(trainer, tmp_path):
    if trainer == "lightning":
        script, command = LIGHTNING.partition("def fit(")[0] + LIGHTNING_RANKS, [sys.executable]
    else:
        script = HUGGING_FACE.partition("def train(")[0] + HUGGING_FACE_RANKS
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run([*command, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    assert int(first["step"]) == (20 if trainer == "lightning" else 6)
    assert (first["values"] >= 0).sum() > 20
    assert all(torch.equal(array, second[name]) for name, array in first.items())


def test_a_pretrained_model_keeps_its_memory(tmp_path):
    from transformers import BertConfig, BertModel, PreTrainedModel

    class Model(PreTrainedModel):
        config_class = BertConfig

        def __init__(self, config):
            super().__init__(config)
            self.body = BertModel(config, add_pooling_layer=False)
            self.memory = raremem.adapters.torch.Memory(slots=30, key_dim=16, neighbors=4)
            self.post_init()

        def forward(self, input_ids, labels=None):
            return self.memory(self.body(input_ids).last_hidden_state[:, 0], labels)

    model = Model(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).eval()
    texts = torch.arange(40).reshape(10, 4)
    with torch.no_grad():
        model.memory.update(model(texts, torch.arange(10)))
        model.save_pretrained(tmp_path)
        again = Model.from_pretrained(tmp_path).eval()
        assert again(texts).values[:, 0].tolist() == list(range(10))
    assert all(torch.equal(array, model.state_dict()[name]) for name, array in again.state_dict().items())


def test_a_lookup_returned_in_evaluation_cannot_be_taken_apart(tmp_path, monkeypatch):
    """As the page says: should it work some day, the page may say so."""
    monkeypatch.chdir(tmp_path)
    names = names_of(HUGGING_FACE, "whole = train(")

    class Whole(names["MemoryTrainer"]):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            out = model(**inputs)
            return (out.loss.mean(), {"loss": out.loss.mean(), "out": out}) if return_outputs else out.loss.mean()

    options = names["TrainingArguments"]("there", use_cpu=True, report_to=[], disable_tqdm=True)
    with pytest.raises(TypeError, match="Lookup"):
        Whole(names["Network"](), options).predict(names["data"])
