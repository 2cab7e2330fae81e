"""What makes ECGs from weights: the twin and its sampling."""
