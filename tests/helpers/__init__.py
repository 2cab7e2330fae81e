"""Builders and witnesses that several tests share."""
