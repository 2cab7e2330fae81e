"""Statements: what they mean, and their vectors."""
