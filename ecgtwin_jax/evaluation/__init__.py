"""The report on a twin."""
