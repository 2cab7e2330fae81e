"""Are generated ECGs like real ones?"""
