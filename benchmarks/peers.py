"""What is timed, PyTorch's: the same work on the same numbers."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import published, pytorch_peer


class Peer:
  """Makes calls of PyTorch, eager in float32, and compiled.

  Args:
    threads: number of threads on a CPU.
    precision: precision of what is compiled ("float32", "bfloat16"); eager is
      float32, with PyTorch's default settings, unless `compiled` is asked for.
    compiled: whether to compile, too.
  """

  def __init__(self, threads: int, precision: str, compiled: bool):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    self.precision, self.compiled = precision, compiled

  def ways(
    self,
  ) -> list[tuple[str, Callable, contextlib.AbstractContextManager]]:
    """(name, what is done to a function, the type of its products)."""

    def autocast():
      if self.precision == "float32":
        return contextlib.nullcontext()
      return torch.autocast(self.device, torch.bfloat16)

    ways = [("peer", lambda f: f, contextlib.nullcontext)]
    if self.precision != "float32":
      ways.append(("peer_autocast", lambda f: f, autocast))
    if self.compiled:
      ways.append(("peer_compiled", torch.compile, autocast))
    return ways

  def wait(self) -> None:
    if self.device == "cuda":
      torch.cuda.synchronize()

  def tensors(self, *arrays: np.ndarray) -> list[torch.Tensor]:
    return [
      torch.as_tensor(np.ascontiguousarray(x)).to(self.device) for x in arrays
    ]

  def calls(self, name: str, inputs: dict) -> dict[str, Callable]:
    """The calls that do what our workload of that name does."""
    if name in ("stage1_step", "stage2_step"):
      make = {"stage1_step": self._stage1, "stage2_step": self._stage2}[name]
      return {way: make(inputs, f, cast) for way, f, cast in self.ways()}
    arrays = dict(inputs)
    if "latent" in arrays:
      arrays["latent"] = arrays["latent"].swapaxes(1, 2)
    tensors = self.tensors(*arrays.values())
    network = {
      "vae_encode": "vae_encoder",
      "vae_decode": "vae_decoder",
    }.get(name, "denoiser_adax")
    model = pytorch_peer.NETWORKS[network]().to(self.device).eval()
    return {
      way: self._inference(f(model), tensors, cast)
      for way, f, cast in self.ways()
    }

  def _inference(self, model, tensors, cast):
    def call():
      with torch.inference_mode(), cast():
        model(*tensors)
      self.wait()

    return call

  def _stage1(self, inputs, wrap, cast):
    def side(prefix):
      ids = inputs[prefix + "statement_ids"]
      text, mask = published.text_of(inputs["table"], ids)
      latent = 0.18 * inputs[prefix + "mean"]
      return self.tensors(latent, text, mask, inputs[prefix + "patient"])

    batch = [side("reference_"), side("")]
    return self._training(
      pytorch_peer.extractor_loss, "base_extractor", batch, 1e-3, wrap, cast
    )

  def _stage2(self, inputs, wrap, cast):
    text, mask = published.text_of(inputs["table"], inputs["statement_ids"])
    latent = 0.18 * inputs["mean"].swapaxes(1, 2)
    batch = self.tensors(latent, text, mask, inputs["patient"], inputs["base"])
    return self._training(
      pytorch_peer.denoiser_loss, "denoiser_adax", batch, 1e-4, wrap, cast
    )

  def _training(self, loss_fn, network, batch, rate, wrap, cast):
    model = pytorch_peer.NETWORKS[network]().to(self.device)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    loss_fn = wrap(loss_fn)

    def loss(*arguments):
      with cast():
        return loss_fn(*arguments)

    def call():
      pytorch_peer.train_step(loss, (model,), optimizer, batch)
      self.wait()

    return call

  def twins(self, signal, text, patient, chunk: int, wrap=lambda f: f):
    """A call that makes n twins of a reference with the published sampler.

    Args:
      signal: (1, 1024, 12) of the reference.
      text: (s, 768) of the reference's and the target's statements.
      patient: (3,) of the same.
      chunk: latents that are sampled together, as many as fit.

    Returns:
      n -> signals.
    """
    names = ("vae_encoder", "base_extractor", "denoiser_adax", "vae_decoder")
    encoder, extractor, denoiser, decoder = (
      pytorch_peer.NETWORKS[name]().to(self.device).eval() for name in names
    )
    denoiser, decoder = wrap(denoiser), wrap(decoder)
    signal, text, patient = self.tensors(signal, text[None], patient[None])

    @torch.inference_mode()
    def call(n):
      mean, _ = encoder(signal)
      latent = mean.transpose(1, 2) * pytorch_peer.LATENT_SCALE
      base = extractor(latent, text, None, patient)
      made = []
      for start in range(0, n, chunk):
        rows = min(chunk, n - start)
        given = [
          x.expand(rows, *x.shape[1:]).contiguous()
          for x in (text, patient, base)
        ]
        mask = torch.ones(given[0].shape[:2], dtype=bool, device=self.device)
        noise = torch.randn(rows, 4, 128, device=self.device)
        latents = pytorch_peer.sample_ddpm(
          denoiser, noise, (given[0], mask, given[1], given[2])
        )
        made += [decoder(x).cpu() for x in latents.split(64)]
      self.wait()
      return torch.cat(made)

    return call
