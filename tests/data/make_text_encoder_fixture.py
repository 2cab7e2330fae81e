"""Writes tests/data/text_encoder: a small seeded NomicBERT and its outputs.

Run with PyTorch and transformers >= 5.23 installed:

  python tests/data/make_text_encoder_fixture.py

The folder is laid out like the published model: config.json with the published
keys, model.safetensors with the published weight names, a WordPiece vocabulary.
expected.npz holds what transformers' own PyTorch model makes of it, one
statement at a time. The weights are random: nothing here is from a trained
model.
"""

import json
import pathlib
import string

import numpy as np
import torch
from transformers import BertTokenizer, NomicBertConfig, NomicBertModel

FOLDER = pathlib.Path(__file__).parent / "text_encoder"
WORDS = """
abnormal acute age anterior ##s atrial av axis block branch bundle complex ##es
degree depression deviation ecg elevation except fibrillation first flutter for
hypertrophy infarct inferior interval lateral left long low lvh normal old pace
##d ##maker possible possibly premature prolonged qrs qt rapid rate response
rhythm right sinus st tachycardia brady ##cardia undetermined ventricular
voltage wave with inversion non specific change ##ed ( ) , . / - :
"""
STATEMENTS = [
  "Sinus rhythm",
  "Atrial fibrillation with rapid ventricular response",
  "Possible inferior infarct - age undetermined",
  "Left bundle branch block",
  "Sinus bradycardia, normal ECG except for rate",
  "Paced rhythm",
  "LVH",
  "Ventricular premature complexes (PVCs)",
  "Sinus rhythm|First degree A-V block|Prolonged QT interval|Non-specific ST "
  "changes|Inferior T wave inversion|Low QRS voltage|Old anterior infarct|"
  "Abnormal ECG",
]
SIZES = {
  "hidden_size": 42,
  "num_hidden_layers": 2,
  "num_attention_heads": 3,
  "intermediate_size": 53,
}


def make_tokenizer() -> BertTokenizer:
  letters = string.ascii_lowercase + string.digits
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
  tokens += [f"##{letter}" for letter in letters] + WORDS.split()
  tokens = dict.fromkeys(tokens)
  vocabulary = {token: i for i, token in enumerate(tokens)}
  return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def main():
  torch.manual_seed(0)
  tokenizer = make_tokenizer()
  size = -(-len(tokenizer) // 64) * 64
  model = NomicBertModel(NomicBertConfig(vocab_size=size, **SIZES)).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      scale = "norm" in name.lower() and name.endswith("weight")
      weight.normal_(1.0 if scale else 0.0, 0.2)
  model.save_pretrained(FOLDER)
  tokenizer.save_pretrained(FOLDER)
  config = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nowhere/code--modeling.NomicBertModel"},
    "activation_function": "swiglu",
    "vocab_size": size,
    "pad_vocab_size_multiple": 64,
    "type_vocab_size": 2,
    "n_embd": SIZES["hidden_size"],
    "n_layer": SIZES["num_hidden_layers"],
    "n_head": SIZES["num_attention_heads"],
    "n_inner": SIZES["intermediate_size"],
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "layer_norm_epsilon": 1e-12,
    "prenorm": False,
    "causal": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
  }
  text = json.dumps(config, indent=2) + "\n"
  (FOLDER / "config.json").write_text(text)

  tokens = [tokenizer(text)["input_ids"] for text in STATEMENTS]
  longest = max(map(len, tokens))
  ids = np.zeros((len(tokens), longest), np.int32)
  hidden = np.zeros((*ids.shape, SIZES["hidden_size"]), np.float32)
  embeddings = []
  for i, row in enumerate(tokens):
    with torch.no_grad():
      h = model(input_ids=torch.tensor([row])).last_hidden_state
    ids[i, : len(row)], hidden[i, : len(row)] = row, h[0].numpy()
    vector = torch.nn.functional.layer_norm(h.mean(1), h.shape[-1:])
    vector = torch.nn.functional.normalize(vector, dim=-1)
    embeddings.append(vector[0].numpy())
  np.savez_compressed(
    FOLDER / "expected.npz",
    statements=STATEMENTS,
    ids=ids,
    lengths=[len(row) for row in tokens],
    hidden=hidden,
    embeddings=np.stack(embeddings),
  )


if __name__ == "__main__":
  main()
