import hashlib
import json
import pathlib
import shutil
import socket

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ecgtwin_jax.text import nomic
from ecgtwin_jax.text.nomic import load_text_encoder
from ecgtwin_jax.text.statements import StatementEncoder, get_encoder

FOLDER = pathlib.Path(__file__).parent / "data" / "text_encoder"


@pytest.fixture(scope="module")
def encoder():
  return load_text_encoder(str(FOLDER))


@pytest.fixture(scope="module")
def expected():
  with np.load(FOLDER / "expected.npz") as file:
    return dict(file)


@pytest.fixture
def folder(tmp_path):
  return shutil.copytree(FOLDER, tmp_path / "model")


@pytest.fixture
def calls(monkeypatch):
  """The (rows, length) shape and valid rows of every call of the network."""
  seen = []
  original = nomic.embed_tokens

  def spy(model, params, ids, lengths):
    seen.append((ids.shape, int((lengths > 0).sum())))
    return original(model, params, ids, lengths)

  monkeypatch.setattr(nomic, "embed_tokens", spy)
  return seen


def edit_config(folder, drop=(), **changes):
  config = json.loads((folder / "config.json").read_text())
  config = {k: v for k, v in config.items() if k not in drop} | changes
  (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder, change):
  weights = load_file(folder / "model.safetensors")
  change(weights)
  save_file(weights, folder / "model.safetensors")


def refusal(call, *args):
  """The message of the ValueError that the call raises: one line."""
  with pytest.raises(ValueError) as caught:
    call(*args)
  message = str(caught.value)
  assert "\n" not in message
  return message


def test_embeddings_equal_pytorch(encoder, expected):
  vectors = encoder.embed(list(expected["statements"]))
  assert vectors.dtype == np.float32
  np.testing.assert_allclose(vectors, expected["embeddings"], atol=1e-5, rtol=0)
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_statement_alone_equals_itself_in_a_batch(encoder, expected):
  statements = list(expected["statements"])
  batch = encoder.embed(statements * 3)
  alone = np.concatenate([encoder.embed([text]) for text in statements])
  np.testing.assert_array_equal(batch, np.tile(alone, (3, 1)))


def test_case_and_accents_do_not_matter(encoder):
  one, other = encoder.embed(["sinus rhythm", "SINUS Rhythm"])
  np.testing.assert_array_equal(one, other)


def test_equal_statements_cost_one(encoder, calls):
  vectors = encoder.embed(["lvh", "sinus rhythm", "lvh", "lvh"])
  assert [valid for _, valid in calls] == [2]
  np.testing.assert_array_equal(vectors[[0, 0]], vectors[2:])
  assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_many_statements_need_few_shapes(encoder, calls, capsys):
  statements = [f"{'sinus ' * (i % 5 + 1)}{i}" for i in range(101)]
  vectors = encoder.embed(statements)
  assert {shape for shape, _ in calls} == {(16, 8), (16, 16)}
  assert sum(valid for _, valid in calls) == 101
  np.testing.assert_array_equal(vectors[[97]], encoder.embed(statements[97:98]))
  assert "101/101" in capsys.readouterr().err


def test_nothing_to_embed_gives_no_rows(encoder, calls):
  assert encoder.embed([]).shape == (0, 42)
  assert not calls


def test_provenance(encoder):
  weights = (FOLDER / "model.safetensors").read_bytes()
  assert encoder.name == "text_encoder"
  assert encoder.width == 42
  assert hashlib.sha256(weights).hexdigest().startswith(encoder.revision)
  assert len(encoder.revision) == 16


@pytest.mark.parametrize("statement", ["", "  ", "心电图正常", "Ω Ω lvh"])
def test_statement_of_unknown_words_is_refused(encoder, statement):
  assert repr(statement) in refusal(encoder.embed, ["lvh", statement])


def test_too_long_statement_is_refused(folder):
  edit_config(folder, max_trained_positions=11)
  encoder = load_text_encoder(str(folder))
  encoder.embed(["sinus " * 9])
  message = refusal(encoder.embed, ["sinus " * 10])
  assert "has 12 tokens, must have at most 11" in message


def test_config_as_transformers_writes_it_reads_the_same(folder, encoder):
  published = ("n_embd", "n_layer", "n_head", "n_inner", "layer_norm_epsilon")
  edit_config(
    folder,
    drop=(*published, "rotary_emb_base", "activation_function"),
    hidden_size=42,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=53,
    layer_norm_eps=1e-12,
    hidden_act="silu",
    rope_parameters={"rope_theta": 1000.0, "rope_type": "default"},
  )
  other = load_text_encoder(str(folder))
  assert (other.name, other.revision) == ("model", encoder.revision)
  text = ["possible inferior infarct"]
  np.testing.assert_array_equal(other.embed(text), encoder.embed(text))


def test_rotary_base_is_read(folder, encoder):
  edit_config(folder, rotary_emb_base=10)
  text = ["possible inferior infarct"]
  other = load_text_encoder(str(folder)).embed(text)
  assert np.abs(other - encoder.embed(text)).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_read_as_float32(folder, dtype):
  text = ["possible inferior infarct"]

  def embed_after_cast(dtype):
    edit_weights(
      folder, lambda w: w.update({k: v.astype(dtype) for k, v in w.items()})
    )
    return load_text_encoder(str(folder)).embed(text)

  half = embed_after_cast(dtype)
  np.testing.assert_array_equal(half, embed_after_cast(np.float32))


@pytest.mark.parametrize(
  "changes",
  [
    {"model_type": "bert"},
    {"activation_function": "gelu"},
    {"prenorm": True},
    {"qkv_proj_bias": True},
    {"num_experts": 8},
    {"rotary_emb_fraction": 0.5},
  ],
)
def test_another_network_is_refused(folder, changes):
  edit_config(folder, **changes)
  ((key, value),) = changes.items()
  assert f"{key} is {value!r}" in refusal(load_text_encoder, str(folder))


def test_config_without_a_size_is_refused(folder):
  edit_config(folder, drop=["n_inner"])
  message = refusal(load_text_encoder, str(folder))
  assert "must have n_inner or intermediate_size" in message


def test_scaled_rotation_is_refused(folder):
  edit_config(folder, rope_parameters={"rope_type": "yarn"})
  assert "rope_type 'yarn'" in refusal(load_text_encoder, str(folder))


def test_indivisible_heads_are_refused(folder):
  edit_config(folder, n_head=5)
  assert "width 42" in refusal(load_text_encoder, str(folder))


@pytest.mark.parametrize("text", ["{", "7", "\udcff\udcfe"])
def test_broken_config_is_refused(folder, text):
  data = text.encode("utf-8", "surrogateescape")
  (folder / "config.json").write_bytes(data)
  message = refusal(load_text_encoder, str(folder))
  assert "config.json is not a readable config" in message


def test_missing_weights_are_listed(folder):
  def drop(weights):
    for key in list(weights):
      if ".1.mlp." in key or key == "emb_ln.bias":
        del weights[key]

  edit_weights(folder, drop)
  message = refusal(load_text_encoder, str(folder))
  assert "model.safetensors lacks weights emb_ln.bias, " in message
  assert "encoder.layers.1.mlp.fc2.weight" in message


def test_unknown_weights_are_refused_and_heads_ignored(folder):
  extra = np.zeros(3, np.float32)
  edit_weights(folder, lambda w: w.update({"pooler.dense.bias": extra}))
  load_text_encoder(str(folder))
  name = "encoder.layers.2.norm1.bias"
  edit_weights(folder, lambda w: w.update({name: extra}))
  assert f"unknown weights {name}" in refusal(load_text_encoder, str(folder))


def test_weight_of_another_shape_is_refused(folder):
  edit_config(folder, n_inner=59)
  message = refusal(load_text_encoder, str(folder))
  assert "mlp.fc" in message
  assert "has shape (42, 53), must have (42, 59)" in message
  edit_config(folder, n_inner=53, vocab_size=193)
  message = refusal(load_text_encoder, str(folder))
  assert "has shape (192, 42), must have (193, 42)" in message


@pytest.mark.parametrize("length", [0, 5, 3000, 100_000])
def test_truncated_weights_are_refused(folder, length):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:length])
  message = refusal(load_text_encoder, str(folder))
  assert "model.safetensors is not a readable" in message


def test_folder_without_vocabulary_is_refused(folder):
  (folder / "tokenizer.json").unlink()
  message = refusal(load_text_encoder, str(folder))
  assert "must hold tokenizer.json; `hf download" in message


def test_vocabulary_of_another_size_is_refused(folder):
  tokenizer = json.loads((folder / "tokenizer.json").read_text())
  special = dict(list(tokenizer["model"]["vocab"].items())[:5])
  tokenizer["model"]["vocab"] = special
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
  message = refusal(load_text_encoder, str(folder))
  assert "vocabulary has 5 tokens, must have 129..192" in message


def test_vocabulary_list_beside_the_tokenizer_is_no_matter(folder, encoder):
  tokenizer = json.loads((folder / "tokenizer.json").read_text())
  words = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
  lines = "".join(f"{word}\n" for word, _ in words)
  (folder / "vocab.txt").write_text(lines)
  text = ["Possible inferior infarct"]
  other = load_text_encoder(str(folder)).embed(text)
  np.testing.assert_array_equal(other, encoder.embed(text))


@pytest.mark.parametrize("text", ["", "{}", "no JSON", '{"model": {}}'])
def test_broken_tokenizer_is_refused(folder, text):
  (folder / "tokenizer.json").write_text(text)
  message = refusal(load_text_encoder, str(folder))
  assert f"{folder}: unreadable tokenizer: " in message


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty Hugging Face cache, and no network."""

  def refuse(*_):
    raise AssertionError("the network was touched")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)
  monkeypatch.setattr(
    "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub")
  )
  return tmp_path / "hub"


@pytest.mark.parametrize(
  "name", ["nomic-embed-text-v1.5", "someone/model", "/no/such/folder"]
)
def test_missing_model_names_the_command_and_the_alternative(cache, name):
  message = refusal(get_encoder, name)
  assert repr(name) in message
  assert "`hf download nomic-ai/nomic-embed-text-v1.5 config.json" in message
  assert "'hashed-v1'" in message


@pytest.mark.parametrize(
  "hub_name, name",
  [
    ("nomic-ai/nomic-embed-text-v1.5", "nomic-embed-text-v1.5"),
    ("someone/model", "someone/model"),
  ],
)
def test_cached_snapshot_is_found_by_its_name(cache, encoder, hub_name, name):
  folder = cache / f"models--{hub_name.replace('/', '--')}"
  (folder / "refs").mkdir(parents=True)
  (folder / "refs" / "main").write_text("0123abcd")
  shutil.copytree(FOLDER, folder / "snapshots" / "0123abcd")
  for asked in (hub_name, name):
    found = load_text_encoder(asked)
    assert found.name == name
    assert found.revision == encoder.revision
  (folder / "snapshots" / "0123abcd" / "model.safetensors").unlink()
  message = refusal(load_text_encoder, name)
  assert "must hold model.safetensors; `hf download" in message


def test_statements_gets_the_encoder_by_folder(folder):
  assert "width 42" in refusal(get_encoder, str(folder))
  rng = np.random.default_rng(0)

  def widen(weights):
    for key, weight in list(weights.items()):
      shape = [
        768 if n == 42 else 2304 if n == 126 else n for n in weight.shape
      ]
      weights[key] = rng.normal(size=shape).astype(np.float32)

  edit_config(folder, n_embd=768)
  edit_weights(folder, widen)
  encoder = get_encoder(str(folder))
  assert isinstance(encoder, StatementEncoder)
  assert encoder.embed(["lvh"]).shape == (1, 768)
