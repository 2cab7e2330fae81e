"""Our NomicBERT against transformers' PyTorch one: difference and speed.

  python benchmarks/text_encoder.py [--statements 512] [--rounds 3]

Random weights at the published size (12 layers of width 768), saved as the
published model is and read back by both. Needs PyTorch and transformers. Both
embed the same unique statements in batches of 64 of like length, float32, on
what devices they find; compilation is not timed.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import numpy as np
import torch
import transformers

from ecgtwin_jax.text.nomic import load_text_encoder

WORDS = """sinus rhythm atrial fibrillation left right bundle branch block with
possible inferior anterior infarct age undetermined premature ventricular
complexes prolonged interval abnormal normal ecg""".split()


def make_statements(count: int) -> list[str]:
  rng = np.random.default_rng(0)
  unique = {}
  while len(unique) < count:
    unique[" ".join(rng.choice(WORDS, rng.integers(1, 14)))] = None
  return list(unique)


def write_model(folder: pathlib.Path) -> None:
  torch.manual_seed(0)
  model = transformers.NomicBertModel(transformers.NomicBertConfig())
  with torch.no_grad():
    for name, weight in model.named_parameters():
      scale = "norm" in name.lower() and name.endswith("weight")
      weight.normal_(1.0 if scale else 0.0, 0.02)
  model.save_pretrained(folder)
  letters = [f"##{a}" for a in "abcdefghijklmnopqrstuvwxyz"]
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *WORDS]
  tokens += [f"[unused{i}]" for i in range(30522 - len(tokens))]
  vocabulary = {token: i for i, token in enumerate(tokens)}
  tokenizer = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True)
  tokenizer.save_pretrained(folder)


class Peer:
  """The same with PyTorch."""

  def __init__(self, folder: pathlib.Path):
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    load = transformers.NomicBertModel.from_pretrained
    self.model = load(folder, local_files_only=True).eval().to(self.device)
    load = transformers.BertTokenizer.from_pretrained
    self.tokenizer = load(folder, local_files_only=True)

  @torch.inference_mode()
  def embed(self, statements: list[str]) -> np.ndarray:
    tokens = self.tokenizer(statements)["input_ids"]
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    vectors = np.zeros((len(tokens), 768), np.float32)
    for start in range(0, len(order), 64):
      rows = order[start : start + 64]
      batch = self.tokenizer.pad(
        {"input_ids": [tokens[i] for i in rows]}, return_tensors="pt"
      ).to(self.device)
      hidden = self.model(**batch).last_hidden_state
      mask = batch["attention_mask"][..., None]
      vector = (hidden * mask).sum(1) / mask.sum(1)
      vector = torch.nn.functional.layer_norm(vector, vector.shape[-1:])
      vector = torch.nn.functional.normalize(vector, dim=-1)
      vectors[rows] = vector.cpu().numpy()
    return vectors


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--statements", type=int, default=512)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  statements = make_statements(args.statements)
  with tempfile.TemporaryDirectory() as folder:
    write_model(pathlib.Path(folder))
    start = time.perf_counter()
    ours = load_text_encoder(folder)
    print(f"ours: read in {time.perf_counter() - start:.1f} s")
    peer = Peer(pathlib.Path(folder))
  start = time.perf_counter()
  vectors = ours.embed(statements)
  print(f"ours: first call {time.perf_counter() - start:.1f} s")
  print(f"largest difference {np.abs(vectors - peer.embed(statements)).max()}")
  alone = np.concatenate([ours.embed([text]) for text in statements[:20]])
  print(f"alone or in a batch: {np.abs(alone - vectors[:20]).max()}")
  rates = {"ours": [], "PyTorch": []}
  for _ in range(args.rounds):
    for name, encoder in (("ours", ours), ("PyTorch", peer)):
      start = time.perf_counter()
      encoder.embed(statements)
      rates[name].append(len(statements) / (time.perf_counter() - start))
  ours_rate, peer_rate = np.median(rates["ours"]), np.median(rates["PyTorch"])
  print(
    f"statements/s, median of {args.rounds}: ours {ours_rate:.0f} "
    f"({jax.default_backend()}), PyTorch {peer_rate:.0f} ({peer.device}, "
    f"{torch.get_num_threads()} threads), ratio {ours_rate / peer_rate:.2f}"
  )


if __name__ == "__main__":
  main()
