"""Networks that the evaluation measures with."""
