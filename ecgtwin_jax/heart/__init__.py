"""The simulated heart and body, piece by piece; `simulator` is the way in."""
