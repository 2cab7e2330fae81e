"""Do generated ECGs repeat what was trained on?"""
