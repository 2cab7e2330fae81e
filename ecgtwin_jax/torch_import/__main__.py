"""python -m ecgtwin_jax.torch_import --vae FILE ...: makes a twin directory."""

import sys

from ecgtwin_jax.torch_import.convert import main

if __name__ == "__main__":
  sys.exit(main())
