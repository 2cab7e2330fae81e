"""The trainings: what each stage learns, and from what."""
