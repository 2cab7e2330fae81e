"""Names of released PyTorch weights for each of our parameters.

A rule table per module turns the path of one of our parameters, such as
`params/block_3/mlp/linear_1/kernel`, into its published name,
`blocks.3.mlp.0.weight`: ordered (pattern, replacement) pairs, all applied.
Convolutions and linears are stored with their axes reversed there.
"""

import re

# Applied last, to every module.
_LEAVES = (
  (r"^(params|batch_stats)/", ""),
  (r"/(kernel|scale)$", ".weight"),
  (r"/mean$", ".running_mean"),
  (r"/var$", ".running_var"),
  (r"/", "."),
)

_DENOISER = (
  (r"latent_embedding", "x_embedder"),
  (r"time_mlp", "t_embedder/mlp"),
  (r"base_projection", "ib_projector"),
  (r"statement_tokens|text_projection", "text_projector"),
  (r"condition/positions", "c_pos_embed/pos_encoding"),
  (r"patient_embedding", "p_embedder"),
  (r"p_embedder/table", "p_embedder/embedding"),
  (r"condition/", ""),
  (r"mlp/linear_1", "mlp/0"),
  (r"mlp/linear_2", "mlp/2"),
  (r"block_(\d+)/", r"blocks/\1/"),
  (r"self_attention/in_(kernel|bias)", r"attn1/in_proj_\1"),
  (r"self_attention", "attn1"),
  (r"injector/", ""),
  (r"condition_norm", "cnorm"),
  (r"norm_(\d)", r"norm\1"),
  (r"cross_attention", "attn2"),
  (r"query_norm", "q_norm"),
  (r"key_norm", "k_norm"),
  (r"value_norm", "v_norm"),
  (r"query", "q_proj"),
  (r"key_value", "kv_proj"),
  (r"(?<!_)modulation/linear", "adaLN_modulation/1"),
  (r"in_proj_kernel", "in_proj_weight"),
)

# The autoencoder's layers in their published order; None has no parameters.
_ENCODER_LAYERS = (
  "conv_in",
  *(
    f"level_{level}_{part}"
    for level in range(3)
    for part in ("block_0", "block_1", "down")
  ),
  *(f"middle_block_{i}" for i in range(3)),
  "middle_attention",
  "last_block",
  "norm_out",
  None,
  "conv_out",
  "moments",
)
_DECODER_LAYERS = (
  "unmoments",
  "conv_in",
  "first_block",
  "middle_attention",
  *(f"middle_block_{i}" for i in range(4)),
  *(
    part and f"level_{level}_{part}"
    for level in (2, 1, 0)
    for part in (None, "up", "block_0", "block_1", "block_2")
  ),
  "norm_out",
  None,
  "conv_out",
)


def _autoencoder(layers):
  return (
    *(
      (rf"^params/{name}/", f"params/{i}/")
      for i, name in enumerate(layers)
      if name
    ),
    (r"/norm_(\d)/", r"/groupnorm_\1/"),
    (r"/skip/", "/residual_layer/"),
    (r"in_kernel", "in_proj/kernel"),
    (r"in_bias", "in_proj/bias"),
  )


RULES = {
  "denoiser_adax": (*_DENOISER, (r"params/output/", "params/final_layer/")),
  "denoiser_adaln": (
    *_DENOISER,
    (r"attn1", "attn"),
    (r"params/output/", "params/final_layer/linear/"),
    (r"output_modulation/linear", "final_layer/adaLN_modulation/1"),
  ),
  "denoiser_attn": (
    *_DENOISER,
    (r"output_norm", "final_layer/0"),
    (r"params/output/", "params/final_layer/1/"),
  ),
  "base_extractor": (
    (r"latent_embedding", "signal_embedding"),
    (r"statement_tokens", "text_projector"),
    (r"null_token", "classfree_emb"),
    (r"layer_(\d+)/", r"layers/\1/"),
    (r"self_attention", "self_attn"),
    (r"cross_attention", "cross_attn"),
    (r"in_kernel", "in_proj_weight"),
    (r"in_bias", "in_proj_bias"),
    (r"linear_(\d)", r"fc\1"),
    (r"/norm_(\d)/", r"/layer_norm\1/"),
  ),
  "vae_encoder": _autoencoder(_ENCODER_LAYERS),
  "vae_decoder": _autoencoder(_DECODER_LAYERS),
  "clip": (
    (r"conv_in", "first_conv/conv"),
    (r"norm_in", "first_bn"),
    (r"stage_(\d)_block_(\d)", r"stage_list/\1/block_list/\2"),
    (r"conv_(\d)", r"conv\1/conv"),
    (r"norm_(\d)", r"bn\1"),
    (r"squeeze", "se_fc1"),
    (r"excite", "se_fc2"),
    (r"signal_projection", "ecg_projector"),
    (r"text_linear", "text_projector/linear"),
  ),
}

# Names in released files that their forward pass never uses.
UNUSED = {
  "vae_encoder": r"13\.groupnorm\.(weight|bias)",
  "vae_decoder": r"3\.groupnorm\.(weight|bias)",
  "clip": (
    r".*\.num_batches_tracked|resnet\.stage_list\.0\.block_list\.0\.bn1\..*"
  ),
}

# Published name -> its axis (as published) along the twelve leads.
LEAD_AXES = {
  "vae_encoder": {"0.weight": 1},
  "vae_decoder": {"25.weight": 0, "25.bias": 0},
  "clip": {"resnet.first_conv.conv.weight": 1},
}


def published_name(module: str, path: str) -> str:
  """Returns the published name of our parameter at `path` of `module`."""
  for pattern, replacement in (*RULES[module], *_LEAVES):
    path = re.sub(pattern, replacement, path)
  return path


def is_unused(module: str, name: str) -> bool:
  """Says whether a published name may stand in a file without a use."""
  return bool(re.fullmatch(UNUSED.get(module, "(?!)"), name))
