"""Self-attention that looks for the same moment of other beats.

All beats of a kind have one shape. Without a way to tell so, a denoiser with a
short reach draws that shape anew for every beat.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgtwin_jax.models import layers
from ecgtwin_jax.models.layers import Array

_SINCE, _UNTIL, _THERE, _KINDS = 2, 3, 7, slice(8, 11)  # as in beat_track.py
_OTHER_KIND = 8.0  # what the logarithm of a weight loses between two kinds
_WIDTHS = (0.03, 0.06, 0.12, 0.24)  # s, of the heads at the start, in turn


def same_moment(
  track: Float[Array, "b l f"],
) -> tuple[Float[jax.Array, "b l l"], Float[jax.Array, "b l l"]]:
  """Computes how far positions are from being the same moment of their beats.

  Returns (the square of the difference, in s, between the two signed distances
  to the nearest R peak; 1 where the nearest beats are of different kinds, else
  0), both all 0 where there is no track.

  Args:
    track: Beat tracks, see models/beat_track.py.
  """
  since, until = track[..., _SINCE], track[..., _UNTIL]
  distance = jnp.where(since < until, since, -until)
  square = jnp.square(distance[:, :, None] - distance[:, None, :])
  kinds = track[..., _KINDS]
  other = jnp.abs(kinds[:, :, None] - kinds[:, None, :]).sum(axis=-1) > 0
  there = track[..., _THERE][:, :, None]
  return square * there, other * there


class BeatAttention(nn.Module):
  """Adds to x what self-attention finds at the same moment of other beats.

  The logarithm of a head's weights gets -(difference / width)^2 with a learned
  width, and -8 between beats of different kinds. It adds nothing at the start.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], track: Float[Array, "b l f"] | None
  ) -> Float[jax.Array, "b l d"]:
    b, l, width = x.shape
    start = np.log(np.resize(_WIDTHS, self.heads)).astype(np.float32)
    log_width = self.param("log_width", lambda _: jnp.asarray(start))
    norm = nn.LayerNorm(epsilon=1e-6, name="norm")
    dense = layers.Dense(
      3 * width, kernel_init=layers.xavier, dtype=self.dtype, name="in_proj"
    )
    qkv = dense(norm(x)).reshape(b, l, 3 * self.heads, -1)
    query, key, value = jnp.split(qkv, 3, axis=2)
    bias = None
    if track is not None:
      square, other = same_moment(track)
      scale = jnp.exp(-2 * log_width)[None, :, None, None]
      bias = -scale * square[:, None] - _OTHER_KIND * other[:, None]
      bias = bias.astype(query.dtype)
    y = jax.nn.dot_product_attention(query, key, value, bias=bias)
    out = layers.Dense(
      width, kernel_init=layers.zeros, dtype=self.dtype, name="out_proj"
    )
    return x + out(y.reshape(b, l, width)).astype(x.dtype)
